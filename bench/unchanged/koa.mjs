// Koa as its documentation has it.
import Koa from 'koa';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

const app = new Koa();
app.use(async (context, next) => {
  if (context.path === '/') context.body = 'hello\n';
  else if (context.path === '/slow') {
    await new Promise((resolve) => setTimeout(resolve, Number(context.query.ms)));
    context.body = 'slow\n';
  } else if (context.path === '/large') context.body = Buffer.alloc(20 * 1024 * 1024, 'x');
  else if (context.path === '/upload') {
    let bytes = 0;
    for await (const chunk of context.req) bytes += chunk.length;
    context.body = `${bytes}\n`;
  } else await next();
});
app.use((context) => {
  context.respond = false;
  context.res.statusCode = 200;
  handle(context.req, context.res);
});
await startDelay();
app.listen(Number(process.env.PORT));
