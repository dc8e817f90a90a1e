/*
 * Shows the events of GET /events. Everything goes into the page as text, so a client's text cannot become markup, and
 * the page's policy would not run it.
 */

/** A connection that is silent for this long is dead, even without an error. */
const SILENCE_MS = 5_000;
const RETRY_MS = 1_000;
const SPAN_MS = 300_000;
const SERIES = {
  '2xx': '2xx, 3xx',
  '4xx': '4xx',
  '5xx': '5xx',
  refused: 'refused (503)',
  unanswered: 'no answer',
};

const byId = (id) => document.getElementById(id);

/** The last event, and when it came. `goneAt` is set while the service does not answer. */
let view;
let heardMs = performance.now();
let goneAt;
/** The last one known: a service that leaves has none. */
let address;
let source;
/** One row a second, of this service and of the one before it: a restart is a gap in the line. */
let rows = [];
let columns = [];

const dialog = byId('dialog');

connect();
setInterval(tick, 1_000);

function connect() {
  source?.close();
  source = new EventSource('/events');
  heardMs = performance.now();
  source.addEventListener('status', ({ data }) => {
    goneAt = undefined;
    hear(JSON.parse(data));
  });
  source.addEventListener('bye', ({ data }) => {
    const last = JSON.parse(data);
    goneAt = new Date();
    if (last.status !== undefined) hear(last);
    else show();
  });
  source.addEventListener('error', () => {
    goneAt ??= new Date();
    show();
    // The browser reconnects after a lost connection, but not after a refused one.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
  });
}

function hear(next) {
  view = { ...next, atMs: Date.now() };
  address = next.status.address ?? address;
  heardMs = performance.now();
  if (next.history !== undefined) {
    columns = next.columns;
    const [first] = next.history;
    rows = [...rows.filter((row) => first !== undefined && row[0] < first[0]), ...next.history];
  }
  if (next.row !== undefined) rows.push(next.row);
  const since = Date.now() - SPAN_MS - 2_000;
  rows = rows.filter(([at]) => at > since);
  show();
}

/** Lets ages grow and notices silence while no event comes. */
function tick() {
  if (performance.now() - heardMs > SILENCE_MS && source.readyState !== EventSource.CLOSED) {
    goneAt ??= new Date(Date.now() - SILENCE_MS);
    connect();
    show();
  } else if (view !== undefined) {
    showRequests();
    showSubline();
  }
}

function show() {
  const state = stateNow();
  const words = headlineNow();
  document.body.dataset.state = state;
  text('headline', words);
  document.title = `${words.split(' - ')[0]} · ${view?.status.host ?? location.host} · master-agent`;
  showIcon(state);
  speak(state, words);
  showEmergency();
  document.querySelector('main').classList.toggle('stale', goneAt !== undefined);
  if (view === undefined) {
    text('subline', goneAt === undefined ? '' : `${location.host}, since ${clock(goneAt)}. Trying again.`);
    return;
  }
  showSubline();
  showDrain();
  showRequests();
  showCharts();
  showWorkers();
  showFacts();
}

/** Whether an emergency shutdown keeps the service down. */
function isLatched() {
  return goneAt !== undefined && view?.status?.shutdown?.emergency?.latched === true;
}

function stateNow() {
  if (isLatched()) return 'latched';
  if (goneAt !== undefined) return view?.report === undefined ? 'gone' : 'stopped';
  if (view === undefined) return 'unknown';
  const { state, shutdown } = view.status;
  if (state === 'running') return shutdown === null ? 'running' : 'duck';
  return state === 'stopping' && shutdown?.emergency ? 'emergency' : state;
}

function headlineNow() {
  if (goneAt !== undefined && view?.report === undefined)
    return isLatched() ? 'LATCHED - the service does not answer' : 'GONE - the service does not answer';
  return view?.headline ?? 'Connecting…';
}

function showSubline() {
  const { service, version, host, pid, application, since, generation, workers, program } = view.status;
  const pool = !workers?.length ? [] : [`${many(workers.length, 'worker')} of generation ${generation || 1}`];
  const where = [address ?? 'not listening yet', program?.command ?? application ?? 'no application module'];
  text('who', [...where, `${host}, process ${pid}`, ...pool, `${service} ${version}`].join(' · '));
  const back = isLatched() ? '' : ' This page follows when the service is back.';
  text(
    'subline',
    goneAt === undefined
      ? `Since ${clock(new Date(since))}, for ${span(Date.now() - Date.parse(since))}`
      : `Gone at ${clock(goneAt)}, ${span(Date.now() - goneAt)} ago.${back}`,
  );
}

/** Screen readers announce a change of state, not each second of it. */
let spoken;
function speak(state, words) {
  if (state === spoken || state === 'unknown') return;
  spoken = state;
  text('spoken', state === 'gone' ? `${words}, since ${clock(goneAt)}` : words);
}

function showDrain() {
  const { shutdown, in_flight } = view.status;
  byId('drain').hidden = shutdown === null || goneAt !== undefined;
  byId('unlatch').hidden = !isLatched();
  if (shutdown === null) return;
  const { count } = in_flight;
  const most = Math.max(shutdown.in_flight_at_lock ?? count, count, 1);
  text('left-label', `In flight: ${count} of ${most} left`);
  setBar('left', count, most);
  const left = Math.ceil(shutdown.remaining_seconds);
  const whole = Math.max(
    1,
    Math.round((Date.parse(shutdown.deadline) - Date.parse(shutdown.started)) / 1_000),
  );
  text('time-label', `Time: ${left} of ${whole} s left, cut at ${clock(new Date(shutdown.deadline))}`);
  setBar('time', shutdown.remaining_seconds, whole);
  const { reason, started, emergency } = shutdown;
  const why = emergency === null ? '' : ` by ${emergency.by}: ${emergency.reason || 'no reason given'}`;
  text('order', `Ordered by ${reason} at ${clock(new Date(started))}${why}`);
}

function setBar(id, value, most) {
  const bar = byId(id);
  bar.max = most;
  bar.value = Math.min(value, most);
}

function showRequests() {
  const { count, oldest, holds = [] } = view.status.in_flight;
  const stopping = goneAt === undefined && view.status.shutdown !== null;
  const since = goneAt === undefined ? performance.now() - heardMs : 0;
  text('oldest-title', stopping ? 'It waits for' : 'Oldest requests in flight');
  fill(
    'requests',
    ['number', 'method', 'path', '', 'id'],
    [
      ...oldest.map(({ id, method, path, age_ms, phase }) => [age(age_ms + since), method, path, phase, id]),
      ...holds.map(({ name, age_ms, request }) => [age(age_ms + since), 'hold', name, 'held', request ?? '']),
    ],
  );
  const shown = oldest.length + holds.length;
  byId('request-table').hidden = shown === 0;
  const more = count - shown;
  text('more', count === 0 ? 'None.' : more > 0 ? `and ${more} more` : '');
}

function showWorkers() {
  const { program, generation, reload } = view.status;
  // Of an instance of a program only the program knows its connections.
  const workers =
    view.status.workers ?? program?.instances.map((one) => ({ ...one, heard_ms_ago: 0, connections: '' }));
  byId('pool').hidden = !workers?.length;
  if (!workers?.length) return;
  text(
    'pool-title',
    `${program === null ? 'Workers' : programTitle(program)}${generation === 0 ? '' : `: generation ${generation}`}${reload === null ? '' : ', a reload is under way'}`,
  );
  fill(
    'workers',
    ['', '', '', 'number', 'number'],
    workers.map(({ pid, generation, state, heard_ms_ago, in_flight, connections }) => {
      // One that starts has nothing to say yet.
      const silent = state !== 'starting' && heard_ms_ago > 2_500 ? `, silent for ${age(heard_ms_ago)}` : '';
      return [pid, generation, `${state}${silent}`, in_flight, connections].map(String);
    }),
  );
}

function programTitle({ restarts: { ended, unhealthy, deaf }, holding }) {
  const restarts = ended + unhealthy + deaf;
  return `Program${restarts === 0 ? '' : `, replaced ${many(restarts, 'time')}`}${holding ? ', requests are held' : ''}`;
}

function showFacts() {
  const { connections, event_loop, last_reload, audit, last_shutdown } = view.status;
  text('connections', `${connections.open} open, ${connections.idle} of them idle`);
  text('loop', event_loop === null ? 'not known' : loopText(event_loop));
  text('reload', last_reload === null ? 'none yet' : reloadText(last_reload));
  text('audit', audit === null ? 'off' : auditText(audit));
  text('last', lastText(view.report ?? last_shutdown));
}

function loopText({ delay_p99_ms, delay_max_ms }) {
  return `in the last minute late by ${delay_p99_ms} ms (p99), at most by ${delay_max_ms} ms`;
}

function reloadText({ outcome, reason, started_ms, duration_ms }) {
  const at = clock(new Date(started_ms));
  return outcome === 'done' ? `done at ${at}, in ${duration_ms} ms` : `REFUSED at ${at}: ${reason}`;
}

function auditText({ mode, head, last_sync_age_ms, failure, unclean_end }) {
  if (failure !== null) return `FAILED: ${failure}`;
  // What is recorded is on disk within a tenth of a second. A longer time means that there was nothing to record.
  const last = view.atMs - last_sync_age_ms;
  const sync =
    last_sync_age_ms === null
      ? 'nothing recorded yet'
      : `all on disk, the last record at ${clock(new Date(last))}`;
  const unclean = unclean_end === null ? '' : '; the run before did not close it';
  return `${mode}, ${sync}; chain ${head.chain} at seal ${head.seq}, ${head.hash.slice(0, 12)}…${unclean}`;
}

function lastText(last) {
  if (last === null) return 'none on record';
  if (last.unclean)
    return `UNCLEAN: process ${last.pid}, started ${day(last.started_at)}, ended without a shutdown`;
  const what = last.exit_code === 0 ? 'clean' : `exit ${last.exit_code}`;
  const named = [
    ...last.cut.map(({ method, path, age_ms }) => ({ what: `${method} ${path}`, age_ms })),
    ...(last.cut_holds ?? []).map(({ name, age_ms }) => ({ what: `hold ${name}`, age_ms })),
  ];
  const cut = named.map(({ what, age_ms }) => `${what} after ${age(age_ms)}`).join('; ');
  return (
    `${what}: ${last.reason}, ${day(last.stopped_at)}, ${last.duration_seconds} s; ${last.completed} completed, ` +
    `${last.rejected} refused, ${named.length === 0 ? 'none cut' : `${named.length} cut: ${cut}`}`
  );
}

function showCharts() {
  const [last] = rows.slice(-1);
  const value = (row, name) => row?.[columns.indexOf(name)] ?? 0;
  const inFlight = view.status.in_flight.count;
  text('flight-now', String(inFlight));
  const most = draw('flight', ['in_flight']);
  label('flight', `In flight, the last five minutes: now ${inFlight}, at most ${most}`);
  draw('rate', Object.keys(SERIES));
  const now = Object.keys(SERIES).map((name) => `${SERIES[name]} ${value(last, name)}`);
  label('rate', `Answers per second, the last five minutes. Now: ${now.join(', ')}`);
  for (const name of Object.keys(SERIES)) text(`now-${name}`, String(value(last, name)));

  function draw(id, names) {
    const highest = Math.max(1, ...rows.map((row) => Math.max(...names.map((name) => value(row, name)))));
    text(`${id}-most`, `${highest}${id === 'rate' ? '/s' : ''}`);
    for (const name of names) series(id, name).setAttribute('d', line(name, highest));
    return highest;
  }

  /** A line by time, with a gap where seconds are missing. */
  function line(name, highest) {
    const now = Date.now();
    let before = Number.NEGATIVE_INFINITY;
    return rows
      .map((row) => {
        const pen = row[0] - before > 3_000 ? 'M' : 'L';
        before = row[0];
        const x = 300 - ((now - row[0]) / SPAN_MS) * 300;
        return `${pen}${x.toFixed(1)} ${(98 - (value(row, name) / highest) * 94).toFixed(1)}`;
      })
      .join('');
  }
}

function label(id, words) {
  byId(id).setAttribute('aria-label', words);
}

function series(id, name) {
  const known = byId(`${id}-${name}`);
  if (known !== null) return known;
  if (id === 'rate') legend(name);
  const path = svg('path', { id: `${id}-${name}`, class: `series s-${name}` });
  byId(id).append(path);
  return path;
}

function legend(name) {
  const item = document.createElement('div');
  const sample = svg('svg', { viewBox: '0 0 30 8', 'aria-hidden': 'true' });
  sample.append(svg('path', { d: 'M0 4H30', class: `series s-${name}` }));
  const term = document.createElement('dt');
  term.textContent = SERIES[name];
  const now = document.createElement('dd');
  now.id = `now-${name}`;
  item.append(sample, term, now);
  byId('legend').append(item);
}

function svg(name, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const SHAPES = {
  running: ["<circle cx='8' cy='8' r='7'/>", '2a9d4a'],
  stopping: ["<path d='M8 1l7 14H1z'/>", 'd98200'],
  emergency: ["<path d='M5 1h6l4 4v6l-4 4H5l-4-4V5z'/>", 'd0213a'],
  stopped: ["<path d='M2 2h12v12H2z'/>", '7d8794'],
  latched: ["<path d='M3 7V5a5 5 0 0 1 10 0v2h1v9H2V7zm2 0h6V5a3 3 0 0 0-6 0z'/>", 'd0213a'],
  gone: ["<path d='M1 3l2-2 5 5 5-5 2 2-5 5 5 5-2 2-5-5-5 5-2-2 5-5z'/>", 'd0213a'],
};

function showIcon(state) {
  const [shape, color] = SHAPES[state] ?? ["<path d='M8 1a7 7 0 0 1 0 14z'/>", 'd98200'];
  const icon = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%23${color}'>${shape}</svg>`;
  const link = document.querySelector('link[rel=icon]');
  if (link.getAttribute('href') !== icon) link.setAttribute('href', icon);
}

/** Touches only what differs, so that a selection or a screen reader's position stays. */
function text(id, words) {
  const element = byId(id);
  if (element.textContent !== words) element.textContent = words;
}

function fill(id, classes, lines) {
  const body = byId(id);
  while (body.rows.length > lines.length) body.deleteRow(-1);
  for (const [index, cells] of lines.entries()) {
    const row = body.rows[index] ?? body.insertRow();
    for (const [at, words] of cells.entries()) {
      const cell = row.cells[at] ?? row.insertCell();
      cell.className = classes[at];
      if (cell.textContent !== words) cell.textContent = words;
    }
  }
}

function age(ms) {
  return ms < 60_000 ? `${(ms / 1_000).toFixed(1)} s` : span(ms);
}

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1_000));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`;
}

function clock(date) {
  return date.toLocaleTimeString('en-GB');
}

function day(iso) {
  return new Date(iso).toLocaleString('en-GB');
}

function many(count, what) {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

/** The dialog can do something only while the service answers, has a token and is not stopped by an emergency already. */
function showEmergency() {
  const { administration, shutdown } = view?.status ?? {};
  const done = shutdown?.emergency ? 'An emergency stop was ordered.' : undefined;
  const gone = goneAt === undefined ? undefined : 'The service does not answer.';
  const closed =
    administration === 'closed'
      ? 'Emergency stop is closed: set ADMIN_TOKEN or ADMIN_TOKEN_FILE.'
      : undefined;
  const why = done ?? gone ?? closed;
  const idle = view === undefined || why !== undefined;
  for (const id of ['open', 'fields', 'send']) byId(id).disabled = idle;
  text('closed', why === closed ? (closed ?? '') : '');
  // A success has said so itself.
  if (dialog.open && why !== undefined && byId('outcome').dataset.kind !== 'good') told('bad', why);
}

byId('open').addEventListener('click', () => {
  const status = view?.status;
  text('target', status ? `${status.service} on ${status.host} (${location.host})` : location.host);
  text('word', status?.service ?? 'master-agent');
  told('', '');
  dialog.showModal();
});
byId('close').addEventListener('click', () => dialog.close());
// The token is in this field alone, and closing the dialog removes it.
dialog.addEventListener('close', () => byId('form').reset());
byId('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  if (byId('name').value.trim() !== byId('word').textContent) {
    told('bad', `Not sent: type ${byId('word').textContent} to confirm.`);
    byId('name').focus();
    return;
  }
  byId('send').disabled = true;
  told('', 'Sending…');
  told(...(await emergency(byId('token').value, byId('reason').value)));
  byId('token').value = '';
  byId('send').disabled = false;
  showEmergency();
});

/**
 * Asks for the emergency shutdown. Another site cannot do this in an operator's name: there is no cookie, it has no
 * token, and this server permits no other origin to send this header.
 */
async function emergency(token, reason) {
  try {
    const response = await fetch('/admin/emergency-shutdown', {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({ reason }),
      signal: AbortSignal.timeout(10_000),
    });
    const answer = await response.json();
    if (!response.ok) return ['bad', `Refused (${response.status}): ${answer.message}`];
    if (answer.latched === false)
      return ['bad', 'Locked and stopping, but the latch could not be kept: it may start again.'];
    return ['good', 'Done: it is locked, stops, and stays down until it is unlatched.'];
  } catch (error) {
    return ['bad', `No answer: ${error.message}. Look at the state above.`];
  }
}

function told(kind, words) {
  byId('outcome').dataset.kind = kind;
  text('outcome', words);
}
