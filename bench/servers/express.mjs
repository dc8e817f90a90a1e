import { createServer } from 'node:http';
import express from 'express';

export default () => {
  const app = express();
  app.get('/', (_request, response) => {
    response.json({ hello: 'world' });
  });
  return createServer(app);
};
