import t from 'tap';
import { GuardedProgram } from '../support/guarded-program.ts';
import { RawClient } from '../support/raw-client.ts';

t.test('an answer that breaks off is never a whole one', async (t) => {
  const guarded = await GuardedProgram.running(t);
  for (const path of ['/short', '/short-chunked', '/exit-while-sending']) {
    const client = await guarded.connect();
    const answer = await client.get(path).answer();
    t.match(answer, { status: undefined, lost: /in the middle of a 200/ }, path);
    await guarded.service.line(`Cut in-flight request: GET ${path} `);
  }
  await guarded.pids();
  guarded.service.signal('SIGTERM');
  t.strictSame(await guarded.service.exited, { code: 0, signal: null });
  t.strictSame(
    guarded.audit().map(({ path, outcome }) => `${path} ${outcome}`),
    ['/short cut', '/short-chunked cut', '/exit-while-sending cut'],
  );
});

t.test(
  'a request that the program has got and not answered is lost, and the client is told so',
  async (t) => {
    const guarded = await GuardedProgram.running(t);
    for (const path of ['/garbage', '/exit']) {
      for (const method of ['GET', 'POST']) {
        const ask = async () => (await guarded.connect()).request(method, path).response();
        let answer = await ask();
        // The program that the one before has ended is not there again yet: this one was not dispatched.
        while (answer.status === 503) answer = await ask();
        t.equal(answer.status, 502, `${method} ${path}`);
        t.match(JSON.parse(answer.body), {
          error: 'Bad Gateway',
          message: 'The program failed to answer this request, which it may have processed.',
          service_state: 'running',
          fail_safe: false,
        });
        await guarded.pids();
      }
    }
    t.equal(guarded.ledger.length, 4, 'and it is not asked again');
    t.equal(new Set(guarded.ledger).size, 4);
    guarded.service.signal('SIGTERM');
    await guarded.service.exited;
    t.strictSame(
      guarded.audit().map(({ status, outcome }) => `${status} ${outcome}`),
      new Array(4).fill('502 cut'),
    );
  },
);

t.test('a client that leaves takes its request to the program along', async (t) => {
  const guarded = await GuardedProgram.running(t);
  const waiting = await guarded.connect();
  waiting.get('/hang');
  await guarded.service.line('hanging');
  waiting.destroy();
  await guarded.service.line('answer left');
  const sending = await guarded.connect();
  sending.request('POST', '/read', { 'Content-Length': '10' }).write('half');
  await guarded.service.line('reading');
  sending.destroy();
  await guarded.service.line('request left');
  guarded.service.signal('SIGTERM');
  await guarded.service.exited;
  t.strictSame(
    guarded.audit().map(({ outcome }) => outcome),
    ['aborted', 'aborted'],
  );
});

/** Asks on kept connections, each client when its answer has come, until it is told to end. */
async function load(
  port: number,
  clients: number,
  method: string,
  goes: () => boolean,
): Promise<
  { readonly status: number | undefined; readonly id: string | undefined; readonly isSafe: boolean }[]
> {
  const outcomes: { status: number | undefined; id: string | undefined; isSafe: boolean }[] = [];
  const one = async (): Promise<void> => {
    let client: RawClient | undefined;
    while (goes()) {
      client =
        client?.end === undefined ? (client ?? (await RawClient.open(port))) : await RawClient.open(port);
      client.request(method, '/pid', method === 'GET' ? {} : { 'Content-Length': '1' });
      if (method !== 'GET') client.write('x');
      const answer = await client.answer({ ms: 60_000 });
      if (answer.status === undefined) {
        outcomes.push({ status: undefined, id: undefined, isSafe: false });
        client = undefined;
      } else {
        const isSafe = answer.status === 503 && JSON.parse(answer.body).fail_safe === true;
        outcomes.push({ status: answer.status, id: answer.headers['x-request-id'], isSafe });
      }
    }
    client?.destroy();
  };
  await Promise.all(Array.from({ length: clients }, one));
  return outcomes;
}

t.test('a program that closes idle connections at once loses no request and sees none twice', async (t) => {
  const guarded = await GuardedProgram.running(t, { habit: 'closes-idle' });
  for (const method of ['GET', 'POST']) {
    let left = 200;
    const outcomes = await load(guarded.port, 4, method, () => {
      left -= 1;
      return left >= 0;
    });
    const answered = outcomes.filter(({ status }) => status === 200).map(({ id }) => id);
    // What was already on its way when the connection closed is lost, and says so.
    t.strictSame(
      outcomes.filter(({ status }) => status !== 200 && status !== 502),
      [],
      method,
    );
    t.ok(answered.length >= 190, `${method}: ${answered.length} of 200 answered`);
    const seen = guarded.ledger;
    t.equal(new Set(seen).size, seen.length, 'none twice');
    for (const id of answered) if (!seen.includes(id ?? '')) t.fail(`${id} was answered and never asked`);
  }
});

t.test(
  'the program is killed again and again under load: nothing is seen twice, nothing is claimed wrongly',
  async (t) => {
    const guarded = await GuardedProgram.running(t, { env: { WORKERS: '2' } });
    let kills = 0;
    const loads = ['GET', 'POST'].map((method) => load(guarded.port, 4, method, () => kills < 3));
    while (kills < 3) {
      const [pid = 0] = await guarded.pids(2);
      process.kill(pid, 'SIGKILL');
      await guarded.statusWhen(({ restarts }) => restarts.ended > kills);
      kills += 1;
    }
    const outcomes = (await Promise.all(loads)).flat();
    const seen = guarded.ledger;
    t.equal(new Set(seen).size, seen.length, `none of ${seen.length} twice`);
    t.strictSame(
      outcomes.filter(({ status }) => status === undefined),
      [],
      'each has an answer',
    );
    t.strictSame(
      outcomes.filter(({ isSafe, id }) => isSafe && seen.includes(id ?? '')),
      [],
      'none that is told to be safe was seen',
    );
    t.ok(outcomes.some(({ status }) => status === 200));
  },
);
