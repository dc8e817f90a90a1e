import type { IncomingMessage, ServerResponse } from 'node:http';
import t, { type Test } from 'tap';
import { Router } from '../../src/server/router.ts';

const handler = (): void => undefined;

/** What a request finds, in one word or two: `GET /orders/:id 7`, `405 GET, HEAD, OPTIONS`, `404`, `400`. */
function found(router: Router, request: string): string {
  const [method = '', url = ''] = request.split(' ');
  const match = router.match(method, url);
  switch (match.kind) {
    case 'route': {
      const { route, values } = match;
      return [route.method, route.pattern, ...values].join(' ');
    }
    case 'options':
      return `204 ${match.allow}`;
    case 'not allowed':
      return `405 ${match.allow}`;
    case 'not found':
      return '404';
    case 'bad target':
      return '400';
  }
}

function routerWith(...routes: string[]): Router {
  const router = new Router();
  for (const route of routes) {
    const [method = '', pattern = ''] = route.split(' ');
    router.on(method, pattern, handler);
  }
  return router;
}

/** Requests and what they find, all on one router. */
function expects(t: Test, router: Router, table: Readonly<Record<string, string>>): void {
  for (const [request, wanted] of Object.entries(table)) t.equal(found(router, request), wanted, request);
}

t.test('a fixed path is found as it stands, with any query', async (t) => {
  expects(t, routerWith('GET /', 'GET /orders', 'POST /orders', 'GET /a/b/c', 'GET /trailing/'), {
    'GET /': 'GET /',
    'GET /?x=1': 'GET /',
    'GET /orders': 'GET /orders',
    'GET /orders?': 'GET /orders',
    'GET /orders?a=/b&c=%zz': 'GET /orders',
    'POST /orders': 'POST /orders',
    'GET /a/b/c': 'GET /a/b/c',
    'GET /a/b': '404',
    'GET /a/b/c/d': '404',
    'GET /Orders': '404',
    'GET /orders/': '404',
    'GET /trailing/': 'GET /trailing/',
    'GET /trailing': '404',
    'GET /ord%65rs': 'GET /orders',
    'GET /orders%2F': '404',
  });
});

t.test('a parameter is one segment, decoded and not empty', async (t) => {
  expects(t, routerWith('GET /orders/:id', 'GET /:a/x/:b'), {
    'GET /orders/7': 'GET /orders/:id 7',
    'GET /orders/7?id=8': 'GET /orders/:id 7',
    'GET /orders/a%20b%2Fc': 'GET /orders/:id a b/c',
    'GET /orders/caf%C3%A9': 'GET /orders/:id café',
    'GET /orders/a+b': 'GET /orders/:id a+b',
    'GET /orders/%3Aid': 'GET /orders/:id :id',
    'GET /orders/': '404',
    'GET /orders/7/': '404',
    'GET /orders/7/x': '404',
    'GET /1/x/2': 'GET /:a/x/:b 1 2',
    'GET //x/2': '404',
    'GET /1/x/': '404',
    'GET /__proto__/x/constructor': 'GET /:a/x/:b __proto__ constructor',
  });
});

t.test('an escape that is none is a bad request', async (t) => {
  const router = routerWith('GET /orders/:id', 'GET /fixed');
  for (const path of ['/orders/%', '/orders/%2', '/orders/%zz', '/orders/%C3', '/%ff', '/nowhere/%']) {
    t.equal(found(router, `GET ${path}`), '400', path);
  }
});

t.test('what is fixed goes before a parameter, and is left again when it leads nowhere', async (t) => {
  expects(
    t,
    routerWith('GET /a/:x', 'GET /a/b', 'GET /:x/b/c', 'GET /a/:x/d/:y', 'GET /a/b/d/e', 'GET /:x/:y/:z/:w'),
    {
      'GET /a/b': 'GET /a/b',
      'GET /a/c': 'GET /a/:x c',
      // /a/b leads no further, /a/:x neither: back to /:x
      'GET /a/b/c': 'GET /:x/b/c a',
      'GET /a/b/d/e': 'GET /a/b/d/e',
      'GET /a/b/d/f': 'GET /a/:x/d/:y b f',
      // The values of the ways that were given up do not stay.
      'GET /a/b/x/f': 'GET /:x/:y/:z/:w a b x f',
      'GET /a/b/x': '404',
    },
  );
});

t.test('a method that is not there gets 405 with those that are', async (t) => {
  expects(
    t,
    routerWith('GET /both', 'POST /both', 'PUT /put', 'DELETE /orders/:id', 'HEAD /head', 'GET /head'),
    {
      'PUT /both': '405 GET, HEAD, OPTIONS, POST',
      'GET /put': '405 OPTIONS, PUT',
      'HEAD /put': '405 OPTIONS, PUT',
      'GET /orders/7': '405 DELETE, OPTIONS',
      'BREW /put': '405 OPTIONS, PUT',
      'constructor /put': '405 OPTIONS, PUT',
      'OPTIONS /both': '204 GET, HEAD, OPTIONS, POST',
      'OPTIONS /orders/7': '204 DELETE, OPTIONS',
      'OPTIONS /nowhere': '404',
      'HEAD /both': 'GET /both',
      'HEAD /head': 'HEAD /head',
    },
  );
});

t.test('a route of its own for OPTIONS goes before the ready-made answer', async (t) => {
  expects(t, routerWith('OPTIONS /cors', 'GET /cors'), { 'OPTIONS /cors': 'OPTIONS /cors' });
});

t.test('a whole URL as the target counts by its path, and * stands for the server', async (t) => {
  expects(t, routerWith('GET /', 'GET /orders/:id'), {
    'GET http://host/orders/7?x=1': 'GET /orders/:id 7',
    'GET http://host:80': 'GET /',
    'GET http://host?next=/orders/7': 'GET /',
    'GET https://host/nowhere': '404',
    'OPTIONS *': '204 OPTIONS',
    'GET *': '400',
    'GET orders/7': '400',
    'CONNECT host:443': '400',
    'GET ': '400',
    'GET ://x/orders/7': '400',
    'GET //host/orders/7': '404',
  });
});

t.test('a mount takes what nothing else fits, the deepest first', async (t) => {
  const router = routerWith('GET /legacy/own', 'GET /:x/other');
  router.mount('/legacy', handler).mount('/legacy/deep/', handler);
  expects(t, router, {
    'GET /legacy': '* /legacy/*',
    'GET /legacy/': '* /legacy/*',
    'BREW /legacy/anything/at/all': '* /legacy/*',
    'GET /legacy/own': 'GET /legacy/own',
    'GET /legacy/other': '* /legacy/*',
    'GET /legacy/deep/er': '* /legacy/deep/*',
    'GET /legacydeep': '404',
    'OPTIONS /legacy/x': '* /legacy/*',
    'HEAD /legacy/x': '* /legacy/*',
    'GET /l%65gacy/x': '* /legacy/*',
  });
  t.equal(found(new Router().mount('/', handler), 'GET /'), '* /*');
  t.equal(found(new Router().mount('/', handler), 'GET /any/where'), '* /*');
});

t.test(
  'a mounted function finds the prefix in baseUrl, the query kept, the whole in originalUrl, and the id',
  async (t) => {
    const seen = (prefix: string, url: string): object => {
      const request = { url, headers: {} } as IncomingMessage;
      const router = new Router().mount(prefix, (given) => t.equal(given, request));
      const match = router.match('GET', url);
      if (match.kind !== 'route') return {};
      void match.route.handler(request, {} as ServerResponse, { id: 'run-1' } as never);
      return { ...request };
    };
    for (const [prefix, originalUrl, baseUrl, url] of [
      ['/legacy', '/legacy', '/legacy', '/'],
      ['/legacy', '/legacy/', '/legacy', '/'],
      ['/legacy', '/legacy?x=1', '/legacy', '/?x=1'],
      ['/legacy', '/legacy?x=/a/b', '/legacy', '/?x=/a/b'],
      ['/legacy', '/legacy/a%20b/c?x=1&y=/z', '/legacy', '/a%20b/c?x=1&y=/z'],
      ['/legacy/', '/legacy/a', '/legacy', '/a'],
      ['/two/parts', '/two/parts/a', '/two/parts', '/a'],
      ['/two/parts', '/two/parts?/a', '/two/parts', '/?/a'],
      ['/two/parts', '/tw%6F/p%61rts/a%2Fb', '/tw%6F/p%61rts', '/a%2Fb'],
      ['/tenants/:id', '/tenants/7/a', '/tenants/7', '/a'],
      ['/', '/a/b?c', '', '/a/b?c'],
      ['/', '/', '', '/'],
      ['/legacy', 'http://host/legacy/a?x', '/legacy', '/a?x'],
      ['/', 'http://host?next=/admin', '', '/?next=/admin'],
      ['/', 'http://host', '', '/'],
    ] as const) {
      const headers = { 'x-request-id': 'run-1' };
      t.strictSame(seen(prefix, originalUrl), { headers, originalUrl, baseUrl, url }, originalUrl);
    }
  },
);

t.test('an upgrade has patterns of its own, beside the routes and mounts at the same paths', async (t) => {
  const router = routerWith('GET /chat/lobby', 'GET /:anything');
  t.notOk(router.takesUpgrades);
  router.upgrade('/chat/:room', handler).upgrade('/socket', handler).mount('/mounted', handler);
  router.upgrade('/mounted/socket', handler);
  t.ok(router.takesUpgrades);
  const upgrade = (url: string): string | undefined => {
    const taker = router.matchUpgrade(url);
    return taker === undefined ? undefined : [taker.route.pattern, ...taker.values].join(' ');
  };
  t.equal(upgrade('/socket?x=1'), '/socket');
  t.equal(upgrade('/chat/a%20b'), '/chat/:room a b');
  t.equal(upgrade('http://host/socket'), '/socket');
  t.equal(
    upgrade('/chat/lobby'),
    '/chat/:room lobby',
    'a route without upgrade does not hide a pattern with',
  );
  t.equal(upgrade('/elsewhere'), undefined);
  t.equal(upgrade('/chat/%'), undefined);
  t.equal(upgrade('*'), undefined);
  expects(t, router, {
    'GET /chat/7': '404',
    'GET /chat/lobby': 'GET /chat/lobby',
    // What only upgrades does not hide what answers here: socket.io polls where it upgrades.
    'GET /socket': 'GET /:anything socket',
    'GET /mounted/socket': '* /mounted/*',
  });
});

t.test('a mistake in the table of routes is found when it is registered', async (t) => {
  const throws = (run: (router: Router) => unknown, message: string): void => {
    t.throws(() => run(new Router()), { message }, message);
  };
  const twice =
    (...patterns: string[]) =>
    (router: Router): void => {
      for (const pattern of patterns) router.get(pattern, handler);
    };
  throws(twice('/a', '/a'), 'router: GET /a is taken by /a');
  throws(twice('/a/:x', '/a/:y'), 'router: GET /a/:y is taken by /a/:x');
  throws(twice('/a', '/%61'), 'router: GET /%61 is taken by /a');
  throws((router) => router.mount('/m', handler).mount('/m/', handler), 'router: mount /m/ is taken');
  throws(
    (router) => router.upgrade('/u', handler).upgrade('/u', handler),
    'router: UPGRADE /u is taken by /u',
  );
  for (const pattern of ['', 'a', '*', '/a?b', '/a#b', '/a b', '/a/*']) {
    throws(twice(pattern), `router: want a path like /orders/:id, got ${JSON.stringify(pattern)}`);
  }
  for (const pattern of ['/a/:', '/:x/:x']) {
    throws(twice(pattern), `router: want each parameter named, and once, got ${JSON.stringify(pattern)}`);
  }
  for (const method of ['get', '', 'G ET', '*']) {
    throws(
      (router) => router.on(method, '/a', handler),
      `router: want a method in capitals, got ${JSON.stringify(method)}`,
    );
  }
  throws((router) => router.get('/a', null as never), 'router: want a function for GET /a, got null');
  throws((router) => router.mount('/a', {} as never), 'router: want a function for mount /a, got object');
  throws(
    (router) => router.upgrade('/a', undefined as never),
    'router: want a function for upgrade /a, got undefined',
  );
});

t.test('methods with a name of their own register under it', async (t) => {
  const router = new Router();
  router.get('/x', handler).post('/x', handler).put('/x', handler).patch('/x', handler).delete('/x', handler);
  t.equal(found(router, 'BREW /x'), '405 DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT');
});

t.test('the tallies come in the order of registration, and one for what no route answers', async (t) => {
  const router = routerWith('GET /b', 'POST /a');
  router.mount('/m', handler).upgrade('/u', handler);
  t.strictSame(
    router.tallies().map(({ method, route }) => `${method} ${route}`),
    ['GET /b', 'POST /a', '* /m/*', 'UPGRADE /u', '* (none)'],
  );
});

t.test('a pattern that does not take the method is passed by', async (t) => {
  const router = routerWith(
    'GET /users/me',
    'POST /users/:id',
    'DELETE /users/:id',
    'GET /old/new',
    'GET /old/:x',
  );
  router.mount('/old', handler);
  expects(t, router, {
    'GET /users/me': 'GET /users/me',
    'POST /users/me': 'POST /users/:id me',
    'GET /users/7': '405 DELETE, OPTIONS, POST',
    'PUT /users/me': '405 DELETE, GET, HEAD, OPTIONS, POST',
    'OPTIONS /users/me': '204 DELETE, GET, HEAD, OPTIONS, POST',
    'GET /old/new': 'GET /old/new',
    'HEAD /old/new': 'GET /old/new',
    'POST /old/new': '* /old/*',
    'OPTIONS /old/new': '* /old/*',
    'POST /old/7': '* /old/*',
  });
});
