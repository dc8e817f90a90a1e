// NestJS on Express; with NEST_HOOKS its own shutdown hooks are on. The decorators are called, as TypeScript compiles them.
import 'reflect-metadata';
import { All, Controller, Get, HttpCode, Module, Post, Query, Req, Res } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { handle, startDelay } from '../../test/conformance/routes.mjs';

class AppController {
  hello() {
    return 'hello\n';
  }
  async slow(ms) {
    await new Promise((resolve) => setTimeout(resolve, Number(ms)));
    return 'slow\n';
  }
  async upload(request) {
    let bytes = 0;
    for await (const chunk of request) bytes += chunk.length;
    return `${bytes}\n`;
  }
  others(request, response) {
    handle(request, response);
  }
}
const route = (name, ...decorators) => {
  const property = Object.getOwnPropertyDescriptor(AppController.prototype, name);
  for (const decorate of decorators) decorate(AppController.prototype, name, property);
};
const parameter = (name, index, decorate) => decorate(AppController.prototype, name, index);
route('hello', Get('/'));
route('slow', Get('/slow'));
parameter('slow', 0, Query('ms'));
route('upload', Post('/upload'), HttpCode(200));
parameter('upload', 0, Req());
route('others', All('*path'));
parameter('others', 0, Req());
parameter('others', 1, Res());
Controller()(AppController);

class AppModule {}
Module({ controllers: [AppController] })(AppModule);

const app = await NestFactory.create(AppModule, { bodyParser: false, logger: ['error'] });
if (process.env.NEST_HOOKS) app.enableShutdownHooks();
await startDelay();
await app.listen(Number(process.env.PORT));
