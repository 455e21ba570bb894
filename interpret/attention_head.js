// One head of the attention view: its picture with tokens along both axes, lines between tokens, and words.
//
// Stands before attention.js in the same script, which keeps `view`, `head`, `kept` and `pointed`.
// i is the token that looks, j ≤ i the token looked at; a weight is in whole per mille.

const SPREAD = 24; // px from token to token; the style sheet has the same as --spread
const FAINT = 10; // per mille: a thinner line would not be seen
const STRONGEST = 8; // tokens told in words
const TOP = 6; // px above the large picture: half a label
const LETTER = 6.7; // px, the width of a letter along an axis

let drawnWidth = 0; // px of the large picture

const toAlpha = perMille => 255 * Math.sqrt(perMille / 1000);

function weight(i, j) {
  return view.weights[view.start + (i * (i + 1)) / 2 + j]; // rows of a triangle, one behind the other
}

// ── one head, large ──

function drawMap() {
  const T = view.tokens.length;
  const box = part('map');
  drawnWidth = box.clientWidth;
  const longest = Math.max(...view.tokens.map((_, i) => visible(i).length));
  const margin = Math.min(longest * LETTER + 8, 100, drawnWidth / 4); // for the tokens along an axis
  const cell = Math.min(28, (drawnWidth - margin - 2) / T);
  const [side, every] = [cell * T, Math.ceil(11 / cell)]; // labels stand 11 px apart at least
  if (cell <= 0) return;
  const canvas = make('canvas');
  paint(canvas, T, k => (k % T > Math.floor(k / T) ? 0 : toAlpha(weight(Math.floor(k / T), k % T))));
  const size = { width: margin + side + 1, height: side + margin + TOP };
  const square = { x: margin, width: side, height: side };
  const svg = make(
    'svg',
    { ...size, viewBox: `0 ${-TOP} ${size.width} ${size.height}`, role: 'img', 'aria-label': `${name(head)}: rows look at columns` },
    make('image', { ...square, href: canvas.toDataURL(), class: 'attention-pixels' }),
    make('rect', { ...square, class: 'attention-frame' }),
    make('rect', { ...square, height: cell, class: 'attention-row', visibility: 'hidden' }),
  );
  for (let i = 0; i < T; i += every) {
    const [middle, letters] = [(i + 0.5) * cell, Math.floor((margin - 7) / LETTER)];
    const word = visible(i).length > letters ? visible(i).slice(0, letters - 1) + '…' : visible(i);
    svg.append(make('text', { x: margin - 5, y: middle + 3.5, 'text-anchor': 'end' }, word));
    const turned = `translate(${margin + middle + 3.5}, ${side + 6}) rotate(-90)`;
    svg.append(make('text', { transform: turned, 'text-anchor': 'end' }, word));
  }
  const at = event => {
    const corner = svg.getBoundingClientRect();
    const [j, i] = [(event.clientX - corner.left - margin) / cell, (event.clientY - corner.top - TOP) / cell].map(Math.floor);
    return i >= 0 && i < T && j >= 0 && j < T ? [i, j] : null;
  };
  svg.addEventListener('pointermove', event => {
    const found = at(event);
    look(found && found[0]);
    if (found) tellCell(...found);
  });
  svg.addEventListener('pointerleave', () => look(null));
  svg.addEventListener('click', event => at(event) && keep(at(event)[0]));
  box.replaceChildren(svg);
}

function tellCell(i, j) {
  const ahead = `${quote(i)} cannot see ${quote(j)}, which comes later`;
  part('cell').textContent = j > i ? ahead : `${quote(i)} → ${quote(j)}: ${percent(weight(i, j))}`;
}

// ── lines between tokens ──

function drawTokens() {
  const T = view.tokens.length;
  const looking = view.tokens.map((_, i) => {
    const button = make('button', { type: 'button', 'data-token': i, 'aria-pressed': 'false' }, visible(i));
    button.addEventListener('click', () => keep(i));
    for (const event of ['pointerenter', 'focus']) button.addEventListener(event, () => look(i));
    for (const event of ['pointerleave', 'blur']) button.addEventListener(event, () => look(null));
    return button;
  });
  part('looking').replaceChildren(...looking);
  part('looked-at').replaceChildren(...view.tokens.map((_, j) => make('span', {}, visible(j))));
  const lines = part('lines');
  lines.setAttribute('viewBox', `0 0 100 ${T * SPREAD}`);
  lines.setAttribute('height', T * SPREAD);
  rove(looking, 0);
}

function keep(i) {
  kept = kept === i ? null : i;
  look();
}

// Show what the pointed token attends to, else the kept one, else all lines.
function look(i = pointed) {
  pointed = i;
  const [chosen, T] = [pointed ?? kept, view.tokens.length];
  const lines = [];
  for (let a = chosen ?? 0; a <= (chosen ?? T - 1); a++)
    for (let b = 0; b <= a; b++)
      if (weight(a, b) >= FAINT) {
        const [y1, y2] = [a, b].map(k => (k + 0.5) * SPREAD);
        lines.push(make('line', { x1: 0, y1, x2: 100, y2, 'stroke-opacity': weight(a, b) / 1000 }));
      }
  part('lines').replaceChildren(...lines);
  const share = b => (chosen === null || b > chosen ? 0 : Math.sqrt(weight(chosen, b) / 1000));
  [...part('looked-at').children].forEach((word, b) => word.style.setProperty('--share', share(b)));
  [...part('looking').children].forEach((word, a) => {
    word.setAttribute('aria-pressed', a === kept);
    word.classList.toggle('attention-chosen', a === chosen);
  });
  const row = part('row');
  row?.setAttribute('visibility', chosen === null ? 'hidden' : 'visible');
  row?.setAttribute('y', (chosen ?? 0) * row.getAttribute('height'));
  part('cell').textContent = '';
  tellWords(chosen);
}

function tellWords(i) {
  const words = part('words');
  if (i === null) {
    words.replaceChildren(make('p', {}, 'Point at a token on the left to see its lines alone; click it to keep them.'));
    return;
  }
  const order = Array.from({ length: i + 1 }, (_, j) => j).sort((a, b) => weight(i, b) - weight(i, a) || b - a);
  const strongest = order.filter(j => weight(i, j) > 0).slice(0, STRONGEST);
  const rest = 1000 - strongest.reduce((sum, j) => sum + weight(i, j), 0);
  const items = strongest.map(j => {
    const where = j === i ? 'itself' : `${i - j} back`;
    return make('li', { style: `--share: ${weight(i, j) / 1000}` }, quote(j) + ' ', make('b', {}, percent(weight(i, j))), ', ' + where);
  });
  // rows are rounded number by number: a "rest" of one or two per mille is that rounding
  if (order.length > STRONGEST && rest > 0) items.push(make('li', { style: '--share: 0' }, `all others ${percent(rest)}`));
  words.replaceChildren(make('p', {}, make('b', {}, quote(i)), ' attends to:'), make('ol', {}, ...items));
}
