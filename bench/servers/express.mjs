import express from 'express';
import { announce } from './announce.mjs';

const app = express();
app.get('/', (_request, response) => {
  response.json({ hello: 'world' });
});
const server = app.listen(0, '127.0.0.1', () => announce(server));
