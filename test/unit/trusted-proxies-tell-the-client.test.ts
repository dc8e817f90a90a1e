import type { IncomingMessage } from 'node:http';
import t from 'tap';
import { traceIdOf } from '../../src/server/trace.ts';
import { TrustedProxies } from '../../src/server/trusted-proxies.ts';

const PEER = '10.0.0.1';
const proxies = new TrustedProxies('10.0.0.0/8,fd00::/16,192.0.2.1');

function clientOf(headers: Record<string, string>, peer = PEER, trusting = proxies): string {
  return trusting.clientOf(peer, { headers } as unknown as IncomingMessage);
}

t.test('X-Forwarded-For is read from the right, past those that are trusted', async (t) => {
  for (const [value, client] of [
    ['198.51.100.7', '198.51.100.7'],
    ['203.0.113.9, 198.51.100.7', '198.51.100.7'],
    ['203.0.113.9,198.51.100.7 , 10.2.3.4,  192.0.2.1', '198.51.100.7'],
    ['10.9.9.9, 10.2.3.4', '10.9.9.9'],
    ['198.51.100.7:4711', '198.51.100.7'],
    ['[2001:db8::7]:4711', '2001:db8::7'],
    ['[2001:db8::7]', '2001:db8::7'],
    ['2001:db8::7, fd00::1', '2001:db8::7'],
    // What is no address hides what is left of it.
    ['198.51.100.7, unknown', PEER],
    ['198.51.100.7, _hidden, 10.2.3.4', '10.2.3.4'],
    ['198.51.100.7, 999.1.1.1', PEER],
    ['198.51.100.7,', PEER],
    ['', PEER],
    ['"198.51.100.7"', PEER],
  ] as const)
    t.equal(clientOf({ 'x-forwarded-for': value }), client, value);
});

t.test(
  'so is Forwarded, and nothing an attacker writes on the left can change what a proxy has added',
  async (t) => {
    for (const [value, client] of [
      ['for=198.51.100.7', '198.51.100.7'],
      ['For="198.51.100.7:4711";proto=https;by=10.0.0.1', '198.51.100.7'],
      ['for="[2001:db8::7]:4711"', '2001:db8::7'],
      ['for=203.0.113.9, for=198.51.100.7;host="a.example", for=10.2.3.4', '198.51.100.7'],
      ['for="203.0.113.9, for=198.51.100.7', '198.51.100.7'],
      ['for="\\", for=198.51.100.7', '198.51.100.7'],
      ['proto=https', PEER],
      ['for=unknown', PEER],
      ['for=_gazonk', PEER],
      ['for=198.51.100.7;host="a,b"', PEER],
      ['for=198.51.100.7 for=203.0.113.9', PEER],
      ['for=2001:db8::7', PEER],
      ['', PEER],
    ] as const)
      t.equal(clientOf({ forwarded: value }), client, value);
  },
);

t.test(
  'a proxy that writes one of the two and passes the other on cannot be used to choose an address',
  async (t) => {
    const both = (forwarded: string, xff: string): string => clientOf({ forwarded, 'x-forwarded-for': xff });
    t.equal(both('for=198.51.100.7', '198.51.100.7'), '198.51.100.7');
    t.equal(both('for=203.0.113.9', '198.51.100.7'), PEER);
    t.equal(both('nonsense', '198.51.100.7'), PEER);
  },
);

t.test('what comes from elsewhere is not read, and by default nothing is', async (t) => {
  const headers = { 'x-forwarded-for': '198.51.100.7', forwarded: 'for=198.51.100.7' };
  for (const peer of ['11.0.0.1', '192.0.2.2', '::1', 'unknown', 'fe80::1'])
    t.equal(clientOf(headers, peer), peer);
  for (const peer of ['10.255.255.255', '192.0.2.1', '::ffff:10.1.2.3', 'fd00::9'])
    t.equal(clientOf(headers, peer), '198.51.100.7', peer);
  t.equal(clientOf(headers, PEER, new TrustedProxies(undefined)), PEER);
});

t.test('a new list holds at once', async (t) => {
  const own = new TrustedProxies(undefined);
  const headers = { 'x-forwarded-for': '198.51.100.7' };
  t.equal(clientOf(headers, PEER, own), PEER);
  own.configure('10.0.0.1');
  t.equal(clientOf(headers, PEER, own), '198.51.100.7');
  own.configure('10.0.0.2');
  t.equal(clientOf(headers, PEER, own), PEER);
  for (let n = 0; n < 3_000; n += 1) clientOf(headers, `172.16.${n >> 8}.${n & 255}`, own);
  t.equal(clientOf(headers, '10.0.0.2', own), '198.51.100.7', 'also after a crowd');
});

t.test('a trace id is taken from a valid traceparent alone', async (t) => {
  const [trace, parent] = ['4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7'];
  for (const good of [
    `00-${trace}-${parent}-01`,
    `00-${trace}-${parent}-00`,
    `cc-${trace}-${parent}-01-later`,
  ])
    t.equal(traceIdOf(good), trace, good);
  for (const bad of [
    undefined,
    '',
    `00-${trace}-${parent}-01-more`,
    `00-${trace}-${parent}`,
    `ff-${trace}-${parent}-01`,
    `00-${'0'.repeat(32)}-${parent}-01`,
    `00-${trace}-${'0'.repeat(16)}-01`,
    `00-${trace.toUpperCase()}-${parent}-01`,
    `00-${trace}-${parent}-01, 00-${trace}-${parent}-01`,
    `cc-${trace}-${parent}-01.more`,
    `00-${trace}0-${parent}-01`,
  ])
    t.equal(traceIdOf(bad), undefined, String(bad));
});
