// Bare node:http that logs as we do, the yardstick of a start: the library is loaded, a line is written.
import { pino } from 'pino';
import makeServer from './bare-node.mjs';

export default () => {
  pino().info('starting');
  return makeServer();
};
