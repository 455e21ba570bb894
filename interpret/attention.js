// The attention view in the browser: everything about one prompt arrives once, and looking around asks the server nothing.
//
// `element`, `props` and `watch` are Gradio's (gr.HTML, js_on_load). `props.value` is what `interpret/tab_attention.py`
// packed, or null. Tokens are anybody's text: they only ever become text nodes, never markup. attention_head.js stands
// before this in the same script: it draws the one head that is chosen here.
//
// A head is [row, head]: the row among the recorded layers. i is the token that looks, j ≤ i the token looked at.

const SVG = 'http://www.w3.org/2000/svg';

let view = null; // the unpacked value
let head = [0, 0];
let kept = null; // the token that was clicked
let pointed = null; // the token under the pointer or the focus, which goes before it

const part = name => element.querySelector('.attention-' + name);
const percent = perMille => (perMille / 10).toFixed(1) + ' %';
const quote = i => JSON.stringify(view.tokens[i]);
const visible = i => view.tokens[i].replaceAll(' ', '·').replaceAll('\n', '↵').replaceAll('\t', '→');
const name = ([row, h]) => `layer ${view.layers[row]}, head ${h}`;

function make(tag, attributes = {}, ...children) {
  const svg = ['svg', 'image', 'rect', 'text', 'line'].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(inflated).arrayBuffer();
}

async function receive() {
  const value = props.value;
  part('hint').hidden = Boolean(value);
  part('body').hidden = !value;
  if (!value) return;
  const [small, weights] = await Promise.all([unpack(value.small), unpack(value.weights)]);
  if (value !== props.value) return; // another one came meanwhile
  view = { ...value, small: new Uint8Array(small), weights: new Uint16Array(weights) };
  kept = pointed = null;
  part('summary').textContent = value.summary;
  drawGrid();
  drawTokens();
  drawStatistics();
  choose([0, 0]);
}

// ── all heads ──

function paint(canvas, side, alpha) {
  canvas.width = canvas.height = side;
  const context = canvas.getContext('2d');
  const image = context.createImageData(side, side);
  for (let k = 0; k < side * side; k++) image.data[4 * k + 3] = alpha(k);
  context.putImageData(image, 0, 0);
  context.globalCompositeOperation = 'source-in'; // the accent wherever something was painted, as strong as that was
  context.fillStyle = getComputedStyle(part('body')).getPropertyValue('--accent');
  context.fillRect(0, 0, side, side);
}

function drawGrid() {
  const grid = part('grid');
  grid.style.setProperty('--heads', view.heads);
  const numbers = Array.from({ length: view.heads }, (_, h) => make('span', { class: 'attention-top' }, String(h)));
  const cells = view.layers.flatMap((layer, row) => [
    make('span', {}, String(layer)),
    ...numbers.map((_, h) => headButton(row, h)),
  ]);
  grid.replaceChildren(make('span', { class: 'attention-top' }), ...numbers, ...cells);
}

function headButton(row, h) {
  const { side, small } = view;
  const canvas = make('canvas', { 'aria-hidden': 'true' });
  const start = (row * view.heads + h) * side * side;
  paint(canvas, side, k => small[start + k]);
  const told = describe([row, h]);
  const button = make('button', { type: 'button', 'data-layer': view.layers[row], 'data-head': h, 'aria-label': told }, canvas);
  button.addEventListener('click', () => {
    choose([row, h]);
    namePart(`L${view.layers[row]}H${h}`);
  });
  for (const event of ['pointerenter', 'focus']) button.addEventListener(event, () => (part('told').textContent = told));
  for (const event of ['pointerleave', 'blur'])
    button.addEventListener(event, () => (part('told').textContent = describe(head)));
  return button;
}

// The head that was clicked is the part that the panel below would remove; the server hears of it when it is asked.
function namePart(text) {
  const box = document.querySelector('#attention-part :is(input, textarea)');
  if (!box) return;
  box.value = text;
  box.dispatchEvent(new Event('input', { bubbles: true }));
}

function describe(which) {
  const numbers = view.statistics.map(({ title, unit, digits, values }) =>
    `${title} ${values[which[0]][which[1]].toFixed(digits)} ${unit}`);
  return `${name(which)}: ${numbers.join(', ')}`;
}

function choose(which) {
  head = which;
  const T = view.tokens.length;
  view.start = ((head[0] * view.heads + head[1]) * T * (T + 1)) / 2;
  const place = head[0] * view.heads + head[1];
  rove(part('grid').querySelectorAll('button'), place, 'aria-pressed');
  part('told').textContent = describe(head);
  part('name').textContent = name(head);
  drawMap();
  look();
}

// ── numbers by head ──

function drawStatistics() {
  const tables = view.statistics.map(statisticTable);
  part('numbers').replaceChildren(...tables.slice(0, 2));
  part('more').replaceChildren(...tables.slice(2));
}

function statisticTable({ title, unit, digits, values }) {
  const [least, most] = [Math.min(...values.flat()), Math.max(...values.flat())];
  const share = v => (most > least ? (v - least) / (most - least) : 0);
  const range = `from ${least.toFixed(digits)} (clear) to ${most.toFixed(digits)} (full)`;
  const rows = values.map((row, k) => {
    const cells = row.map(v => make('td', { style: `--share: ${share(v)}` }, v.toFixed(digits)));
    return make('tr', {}, make('th', { scope: 'row' }, String(view.layers[k])), ...cells);
  });
  const numbers = values[0].map((_, h) => make('th', { scope: 'col' }, String(h)));
  const header = make('tr', {}, make('th', {}, 'layer ↓ head →'), ...numbers);
  const table = make('table', {}, make('caption', {}, `${title}, ${unit}`, make('small', {}, range)), header, ...rows);
  return make('div', { class: 'attention-table', tabindex: 0 }, table); // scrolls sideways, by keyboard too
}

// ── keyboard: Tab goes into a group once, arrows walk inside it ──

function rove(buttons, place, state) {
  buttons.forEach((button, k) => {
    button.tabIndex = k === place ? 0 : -1;
    if (state) button.setAttribute(state, k === place);
  });
}

function walk(group, across) {
  group.addEventListener('keydown', event => {
    const buttons = [...group.querySelectorAll('button')];
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across(), ArrowUp: -across() };
    const next = buttons[buttons.indexOf(document.activeElement) + (steps[event.key] ?? NaN)];
    if (!next) return;
    event.preventDefault();
    rove(buttons, buttons.indexOf(next));
    next.focus();
  });
}

walk(part('grid'), () => view.heads);
walk(part('looking'), () => 1);
// Width alone: the drawing itself sets the height. It is 0 in a hidden tab, and this calls when the tab is opened.
new ResizeObserver(() => view && part('map').clientWidth !== drawnWidth && drawMap()).observe(part('map'));
// dark mode is a class of the body: the pictures are painted again in its accent
new MutationObserver(() => view && (drawGrid(), choose(head))).observe(document.body, { attributeFilter: ['class'] });
watch('value', receive);
receive();
