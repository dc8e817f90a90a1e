/** Something that happens once, and can be waited for before and after. */
export interface Milestone<T> {
  readonly promise: Promise<T>;
  readonly reached: boolean;
  /** Only the first time counts. */
  reach(value: T): void;
}

export function milestone<T>(): Milestone<T> {
  let resolve: (value: T) => void = () => undefined;
  let reached = false;
  const promise = new Promise<T>((fulfil) => {
    resolve = fulfil;
  });
  return {
    promise,
    get reached() {
      return reached;
    },
    reach: (value) => {
      reached = true;
      resolve(value);
    },
  };
}
