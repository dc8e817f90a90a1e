import { once } from 'node:events';
import t, { type Test } from 'tap';
import { running } from '../support/embedded-service.ts';
import { RawClient } from '../support/raw-client.ts';

/** A handler that asks for its signal only when its response is closed. @returns whether that is aborted then */
async function lateSignal(
  t: Test,
  after: (client: RawClient, stop: () => Promise<unknown>) => unknown,
  answers = false,
): Promise<boolean> {
  let tell: (aborted: boolean) => void = () => undefined;
  let begun: () => void = () => undefined;
  const told = new Promise<boolean>((resolve) => {
    tell = resolve;
  });
  const handling = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const { service, port } = await running(t, {
    config: { shutdownTimeoutMs: 0 },
    app: {
      routes(router) {
        router.get('/', async (_request, response, context) => {
          begun();
          if (answers) response.end('whole');
          await once(response, 'close');
          tell(context.signal.aborted);
        });
      },
    },
  });
  const client = (await RawClient.open(port)).get('/');
  await handling;
  await after(client, () => service.stop());
  return told;
}

t.test('a handler that asks for its signal after the end learns of it', async (t) => {
  t.equal(await lateSignal(t, (client) => client.destroy()), true, 'the client is gone');
  t.equal(await lateSignal(t, (_client, stop) => stop()), true, 'the deadline has cut it');
  t.equal(await lateSignal(t, (client) => client.response(), true), false, 'it was answered whole');
});
