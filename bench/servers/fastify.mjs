import fastify from 'fastify';

export default async () => {
  const app = fastify();
  app.get('/', (_request, reply) => {
    reply.send({ hello: 'world' });
  });
  await app.ready();
  return app.server;
};
