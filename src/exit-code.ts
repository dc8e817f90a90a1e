/**
 * Why the process ended, as its parent sees it. 70, 74, 75 and 78 follow sysexits(3): EX_SOFTWARE, EX_IOERR,
 * EX_TEMPFAIL and EX_CONFIG. They are the interface of units and restart policies (`RestartPreventExitStatus=75 78`).
 */
export const ExitCode = {
  /** Stopped, and everything in flight was completed. */
  Ok: 0,
  /** The deadline, or a second SIGINT, cut requests. */
  Forced: 1,
  /** An internal error, or a crash of the application. */
  Internal: 70,
  /** The audit log could not be written. */
  AuditLost: 74,
  /** Latched by an emergency shutdown: refuses to start. */
  Latched: 75,
  /** Bad configuration. */
  Config: 78,
} as const;

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** Of two orders to stop, the code of the graver: lost records before a crash, a crash before a plain stop. */
export function graverOf(one: ExitCode, other: ExitCode): ExitCode {
  return one > other ? one : other;
}

/**
 * A start that cannot go on, for another reason than its configuration (`ConfigError`). The message is the one line an
 * operator gets, so it names what, the rule and the value.
 */
export class StartError extends Error {
  override readonly name = 'StartError';
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
