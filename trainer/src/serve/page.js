'use strict';
// The server sends the similarity of each class to each patch; everything else happens here, so that toggles, thresholds and the
// values under the pointer need no request.

const $ = id => document.getElementById(id);
/** Maximum side of the canvas, and of the label map. */
const DRAWN = 1400, LABELLED = 640;
const NONE = 255;

let model = null;
/** {id, rows, columns, width, height, blob, bitmap, name} */
let picture = null;
/** [{text, name, hidden, share}], in the order of the text field; share is the area fraction. */
let classes = [];
/** {grid: Float32Array [classes, rows, columns], classes: texts, low, high}, or null; of an expression also found: {width, height, inside}. */
let scores = null;
/** {width, height, label: Uint8Array, best: Float32Array}: per pixel the most similar class and its similarity. */
let labels = null;
let heatOf = null, peek = false, asking = false, again = null, loads = 0;

// ---- requests

async function ask(path, options) {
  let answer;
  try { answer = await fetch(path, options); }
  catch { throw new Error('the server does not respond; is it still running?'); }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(told.error || `the server returned status ${answer.status}`), {status: answer.status});
}

function say(text, wrong = false) {
  $('status').textContent = text;
  $('status').classList.toggle('wrong', wrong);
}

async function look(blob, name, example = null) {
  const load = ++loads;
  if (blob.size > model.bytes) return say(`${name}: the image is too large, the limit is ${Math.round(model.bytes / 2 ** 20)} MB`, true);
  $('busy').hidden = false;
  try {
    const told = await send(blob);
    const bitmap = await createImageBitmap(blob, {imageOrientation: 'from-image'});
    if (load !== loads) return;
    picture = {...told, blob, bitmap, name};
    for (const button of $('examples').children) button.setAttribute('aria-current', button.dataset.number === String(example));
    scores = labels = null;
    $('empty').hidden = true;
    $('canvas').hidden = false;
    $('save').disabled = $('mask').disabled = false;
    say(`${name}, ${told.width} x ${told.height}; features computed in ${told.milliseconds} ms`);
    draw();
    compare(performance.now());
  } catch (why) {
    if (load === loads) say(`${name}: ${why.message}`, true);
  } finally {
    if (load === loads) $('busy').hidden = true;
  }
}

async function send(blob) {
  const type = blob.type.startsWith('image/') ? blob.type : 'image/unknown';
  return (await ask('pictures', {method: 'POST', headers: {'Content-Type': type}, body: blob})).json();
}

/** Requests the scores of the current classes. During a request only the latest change is kept; it is requested afterwards. */
async function compare(since) {
  if (!picture) return;
  if (!classes.length) { scores = labels = null; list(); return draw(); }
  if (asking) { again = since; return; }
  asking = true;
  const of = picture, texts = classes.map(each => each.text), expression = meaning(), [width, height] = fit(LABELLED, true);
  try {
    const body = JSON.stringify(expression ? {picture: of.id, expression, width, height} : {picture: of.id, classes: texts});
    const path = expression ? 'mask' : 'scores', wish = {method: 'POST', headers: {'Content-Type': 'application/json'}, body};
    const answer = await ask(path, wish).catch(async why => {
      if (why.status !== 410) throw why;
      await send(of.blob);
      return ask(path, wish);
    });
    const told = expression ? await answer.json() : {};
    const grid = expression ? Float32Array.from(told.similarity) : new Float32Array(await answer.arrayBuffer());
    if (of === picture) {
      scores = {grid, classes: texts, found: expression ? {width, height, inside: filled(told.runs, width * height)} : null};
      let low = Infinity, high = -Infinity;
      for (const value of grid) { if (value < low) low = value; if (value > high) high = value; }
      Object.assign(scores, {low, high});
      show();
      const took = performance.now() - since;
      document.body.dataset.took = took.toFixed(1);
      const what = expression ? `"${told.head}", highest similarity ${told.highest.toFixed(2)},` : `${texts.length} ${texts.length === 1 ? 'class' : 'classes'}`;
      say(`${what} in ${took.toFixed(0)} ms`);
    }
  } catch (why) {
    say(why.message, true);
  } finally {
    asking = false;
    if (again !== null) { const next = again; again = null; compare(next); }
  }
}

/** The expression, or nothing if classes are shown. */
const meaning = () => $('expression').value.trim();

/** A mask of 0 and 1 from the lengths of its runs, of which the first is outside. */
function filled(runs, length) {
  const inside = new Uint8Array(length);
  let at = 0;
  runs.forEach((run, number) => { if (number % 2) inside.fill(1, at, at + run); at += run; });
  return inside;
}

// ---- scores to labels

/** Positions of `length` pixels between `cells` cells: index below, index above, and weight of the one above. */
function between(length, cells) {
  const below = new Int32Array(length), above = new Int32Array(length), share = new Float32Array(length);
  for (let at = 0; at < length; at++) {
    const place = Math.max(0, (at + .5) * cells / length - .5);
    below[at] = Math.min(Math.floor(place), cells - 1);
    above[at] = Math.min(below[at] + 1, cells - 1);
    share[at] = place - below[at];
  }
  return {below, above, share};
}

/** Interpolates one row of the scores of a class between two rows of patches. */
function mixRow(row, grid, first, y, rows) {
  const columns = row.length, a = first + rows.below[y] * columns, b = first + rows.above[y] * columns, share = rows.share[y];
  for (let x = 0; x < columns; x++) row[x] = grid[a + x] + (grid[b + x] - grid[a + x]) * share;
}

/** The mask of an expression as labels, in another size by nearest neighbour. */
function meant(width, height) {
  const {found} = scores, label = new Uint8Array(width * height).fill(NONE), best = new Float32Array(width * height).fill(Infinity);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(y * found.height / height) * found.width;
    for (let x = 0; x < width; x++) if (found.inside[row + Math.floor(x * found.width / width)]) label[y * width + x] = 0;
  }
  return {width, height, label, best};
}

/** The most similar class of each pixel and its similarity, with bilinear interpolation. */
function segment(width, height) {
  if (scores.found) return meant(width, height);
  const {rows: gridRows, columns} = picture, {grid} = scores, count = scores.classes.length;
  const rows = between(height, gridRows), {below, above, share} = between(width, columns);
  const label = new Uint8Array(width * height), best = new Float32Array(width * height).fill(-Infinity), row = new Float32Array(columns);
  for (let y = 0; y < height; y++) {
    for (let of = 0; of < count; of++) {
      mixRow(row, grid, of * gridRows * columns, y, rows);
      for (let x = 0, at = y * width; x < width; x++, at++) {
        const left = row[below[x]], value = left + (row[above[x]] - left) * share[x];
        if (value > best[at]) { best[at] = value; label[at] = of; }
      }
    }
  }
  return {width, height, label, best};
}

/** Width and height of the image, reduced to a maximum side, or with `enlarge` also enlarged to it. */
function fit(longest, enlarge = false) {
  const scale = Math.min(enlarge ? Infinity : 1, longest / Math.max(picture.width, picture.height));
  return [Math.max(1, Math.round(picture.width * scale)), Math.max(1, Math.round(picture.height * scale))];
}

/** Labels without hidden classes and without pixels below the minimum similarity. */
function visible(of) {
  const least = threshold(), out = new Uint8Array(of.label.length);
  for (let at = 0; at < out.length; at++) {
    const label = of.label[at];
    out[at] = of.best[at] < least || classes[label]?.hidden ? NONE : label;
  }
  return out;
}

/** 0 on the slider is off; above, it goes from the lowest to the highest score. */
function threshold() {
  const value = +$('threshold').value;
  return !value || !scores ? -Infinity : scores.low + (scores.high - scores.low) * value / 100;
}

// ---- drawing

function show() {
  labels = segment(...fit(LABELLED, true));
  draw();
}

function draw() {
  if (!picture) return;
  const canvas = $('canvas'), [width, height] = fit(DRAWN);
  // Small images are enlarged, so that names on them are legible.
  const zoom = Math.max(1, Math.min(8, Math.floor(720 / Math.max(width, height))));
  if (canvas.width !== width * zoom || canvas.height !== height * zoom) [canvas.width, canvas.height] = [width * zoom, height * zoom];
  paint(canvas);
  count();
  $('threshold-value').textContent = +$('threshold').value && scores ? threshold().toFixed(2) : 'off';
  $('opacity-value').textContent = `${$('opacity').value} %`;
}

function view() {
  return peek ? 'photo' : heatOf !== null ? 'heat' : document.querySelector('[name=view]:checked').value;
}

function paint(canvas) {
  const context = canvas.getContext('2d'), now = view();
  context.imageSmoothingQuality = 'high';
  context.globalAlpha = 1;
  context.drawImage(picture.bitmap, 0, 0, canvas.width, canvas.height);
  $('ramp').hidden = now !== 'heat' || !labels;
  if (!labels || now === 'photo') return;
  if (now === 'heat') return paintHeat(context, canvas);
  const shown = visible(labels), layer = layerOf(shown);
  context.imageSmoothingEnabled = true;
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
  write(context, canvas, shown);
}

/** Colours of the labels with a light line between segments, as a canvas in the size of the label map. */
function layerOf(shown) {
  const {width, height} = labels, layer = new OffscreenCanvas(width, height), context = layer.getContext('2d');
  const image = context.createImageData(width, height), out = new Uint32Array(image.data.buffer);
  const alpha = Math.round($('opacity').value * 2.55) << 24, line = 0xc0ffffff | 0;
  const colours = Int32Array.from({length: 256}, (_, of) => {
    const [red, green, blue] = model.palette[of];
    return of === NONE ? 0 : alpha | blue << 16 | green << 8 | red;
  });
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const label = shown[at];
      const ends = x + 1 < width && shown[at + 1] !== label || y + 1 < height && shown[at + width] !== label;
      out[at] = ends ? line : colours[label];
    }
  }
  context.putImageData(image, 0, 0);
  return layer;
}

function paintHeat(context, canvas) {
  const of = heatOf ?? Math.max(0, classes.findIndex(each => !each.hidden));
  if (of >= scores.classes.length) return;
  const {width, height} = labels, {rows: gridRows, columns} = picture;
  const rows = between(height, gridRows), {below, above, share} = between(width, columns), row = new Float32Array(columns);
  const first = of * gridRows * columns, own = scores.grid.subarray(first, first + gridRows * columns);
  let low = Infinity, high = -Infinity;
  for (const value of own) { if (value < low) low = value; if (value > high) high = value; }
  const layer = new OffscreenCanvas(width, height), inner = layer.getContext('2d'), image = inner.createImageData(width, height);
  for (let y = 0, at = 0; y < height; y++) {
    mixRow(row, scores.grid, first, y, rows);
    for (let x = 0; x < width; x++, at += 4) {
      const left = row[below[x]], value = left + (row[above[x]] - left) * share[x];
      const colour = model.ramp[Math.round(255 * (value - low) / (high - low || 1))];
      image.data.set(colour, at);
      image.data[at + 3] = 190;
    }
  }
  inner.putImageData(image, 0, 0);
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
  $('low').textContent = `${classes[of]?.name ?? ''} ${low.toFixed(2)}`;
  $('high').textContent = high.toFixed(2);
}

/** Writes each name where its segment has the most room, by two passes of distances to other labels. */
function write(context, canvas, shown) {
  const step = Math.max(1, Math.round(Math.max(labels.width, labels.height) / 200));
  const width = Math.floor(labels.width / step), height = Math.floor(labels.height / step);
  const at = (x, y) => shown[y * step * labels.width + x * step];
  const far = new Float32Array(width * height).fill(1e9);
  const relax = (x, y, dx, dy, cost) => {
    const [nx, ny] = [x + dx, y + dy], inside = nx >= 0 && ny >= 0 && nx < width && ny < height;
    const from = inside && at(nx, ny) === at(x, y) ? far[ny * width + nx] : 0;
    if (from + cost < far[y * width + x]) far[y * width + x] = from + cost;
  };
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) { relax(x, y, -1, 0, 1); relax(x, y, 0, -1, 1); relax(x, y, -1, -1, 1.4); relax(x, y, 1, -1, 1.4); }
  for (let y = height - 1; y >= 0; y--) for (let x = width - 1; x >= 0; x--) { relax(x, y, 1, 0, 1); relax(x, y, 0, 1, 1); relax(x, y, 1, 1, 1.4); relax(x, y, -1, 1, 1.4); }
  const best = new Map();
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const label = at(x, y), room = far[y * width + x];
    if (label !== NONE && room > (best.get(label)?.room ?? 0)) best.set(label, {x, y, room});
  }
  // The size of the text on the screen does not depend on the scale of the canvas.
  const scale = canvas.width / (canvas.clientWidth || canvas.width), size = 15 * scale, unit = canvas.width / width;
  context.font = `600 ${size}px system-ui, "DejaVu Sans", sans-serif`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.lineJoin = 'round';
  for (const [label, {x, y, room}] of best) {
    const name = classes[label]?.name ?? '', half = context.measureText(name).width / 2;
    if (room * unit < size * .8) continue;
    const cx = Math.min(Math.max((x + .5) * unit, half + 4), canvas.width - half - 4);
    context.lineWidth = 4 * scale;
    context.strokeStyle = '#ffffffdd';
    context.strokeText(name, cx, (y + .5) * unit);
    context.fillStyle = '#17171a';
    context.fillText(name, cx, (y + .5) * unit);
  }
}

// ---- the list of classes

/** Reads the text field; classes that are still in it stay hidden or shown. */
function read() {
  const before = new Map(classes.map(each => [each.text, each]));
  const expression = meaning();
  const texts = expression ? [expression] : $('words').value.split(/[,\n]/).map(text => text.split('|').map(word => word.trim()).filter(Boolean).join('|')).filter(Boolean);
  classes = [...new Set(texts)].slice(0, NONE).map(text => before.get(text) ?? {text, name: expression || text.split('|')[0], hidden: false, share: null});
  heatOf = null;
}

function list() {
  while ($('classes').children.length > classes.length) $('classes').lastChild.remove();
  classes.forEach((each, of) => {
    let button = $('classes').children[of]?.firstChild;
    if (!button) {
      button = document.createElement('button');
      button.type = 'button';
      button.append(Object.assign(document.createElement('span'), {className: 'swatch'}), document.createElement('bdi'), document.createElement('small'));
      button.addEventListener('click', () => toggle(of));
      const warm = on => { if (labels && !picking()) { heatOf = on ? of : null; draw(); } };
      button.addEventListener('pointerenter', event => event.pointerType === 'mouse' && warm(true));
      button.addEventListener('pointerleave', () => warm(false));
      const item = document.createElement('li');
      item.append(button);
      $('classes').append(item);
    }
    const [swatch, name, share] = button.children;
    swatch.style.background = `rgb(${model.palette[of]})`;
    name.textContent = each.name;
    share.textContent = each.share === null ? '' : each.share && each.share < .005 ? '< 1 %' : `${Math.round(100 * each.share)} %`;
    button.title = each.text;
    button.setAttribute('aria-pressed', String(!each.hidden));
    button.classList.toggle('shown', view() === 'heat' && of === (heatOf ?? classes.findIndex(each => !each.hidden)));
  });
}

const picking = () => document.querySelector('[name=view]:checked').value === 'heat';

/** Selects a class in the heat map view; in other views hides or shows it. */
function toggle(of) {
  if (!classes[of]) return;
  if (picking()) heatOf = of;
  else { classes[of].hidden = !classes[of].hidden; heatOf = null; }
  draw();
}

/** Computes area fractions. */
function count() {
  for (const each of classes) each.share = null;
  if (labels && scores.classes.length) {
    const counts = new Uint32Array(256);
    for (const label of visible(labels)) counts[label]++;
    scores.classes.forEach((text, of) => { if (classes[of]?.text === text) classes[of].share = counts[of] / labels.label.length; });
  }
  list();
}

// ---- values under the pointer

function point(event) {
  const box = $('canvas').getBoundingClientRect();
  const [fx, fy] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (!scores || fx < 0 || fy < 0 || fx >= 1 || fy >= 1) { $('tip').hidden = true; return; }
  const {rows, columns} = picture, clamp = (value, most) => Math.min(Math.max(value, 0), most);
  const [px, py] = [clamp(fx * columns - .5, columns - 1), clamp(fy * rows - .5, rows - 1)];
  const [x, y] = [Math.min(Math.floor(px), columns - 1), Math.min(Math.floor(py), rows - 1)], [sx, sy] = [px - x, py - y];
  const [x1, y1] = [Math.min(x + 1, columns - 1), Math.min(y + 1, rows - 1)];
  const values = scores.classes.map((text, of) => {
    const cell = (row, column) => scores.grid[(of * rows + row) * columns + column];
    const value = (cell(y, x) * (1 - sx) + cell(y, x1) * sx) * (1 - sy) + (cell(y1, x) * (1 - sx) + cell(y1, x1) * sx) * sy;
    return {of, value, name: text.split('|')[0]};
  }).sort((a, b) => b.value - a.value).slice(0, 6);
  $('tip').replaceChildren(...values.map(({of, value, name}) => {
    const line = document.createElement('div'), swatch = document.createElement('span');
    swatch.className = 'swatch';
    swatch.style.background = `rgb(${model.palette[of]})`;
    line.append(swatch, Object.assign(document.createElement('bdi'), {textContent: name}), Object.assign(document.createElement('span'), {textContent: value.toFixed(3)}));
    return line;
  }));
  $('tip').hidden = false;
  const {offsetWidth, offsetHeight} = $('tip');
  $('tip').style.left = `${Math.min(event.clientX + 16, innerWidth - offsetWidth - 8)}px`;
  $('tip').style.top = `${event.clientY + 20 + offsetHeight > innerHeight ? event.clientY - offsetHeight - 12 : event.clientY + 20}px`;
}

// ---- saving

function download(blob, name) {
  const link = Object.assign(document.createElement('a'), {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say(`saved ${name}`);
}

const stem = () => picture.name.replace(/\.[^.]*$/, '') || 'image';

/** The canvas, with a legend below it. */
async function savePicture() {
  if (!picture) return;
  const from = $('canvas'), found = classes.filter(each => each.share > 0 && !each.hidden && view() === 'segments');
  const size = Math.max(14, Math.round(from.width / 50)), line = size * 1.7;
  const page = document.createElement('canvas'), context = page.getContext('2d');
  context.font = `${size}px system-ui, "DejaVu Sans", sans-serif`;
  const entry = each => `${each.name} ${Math.round(100 * each.share)} %`;
  const widest = Math.max(0, ...found.map(each => context.measureText(entry(each)).width)) + 2.6 * size;
  const columns = Math.max(1, Math.floor(from.width / widest)), rows = Math.ceil(found.length / columns);
  page.width = from.width;
  page.height = from.height + (rows ? rows * line + size : 0);
  context.fillStyle = '#fff';
  context.fillRect(0, 0, page.width, page.height);
  context.drawImage(from, 0, 0);
  context.font = `${size}px system-ui, "DejaVu Sans", sans-serif`;
  context.textBaseline = 'top';
  found.forEach((each, at) => {
    const x = (at % columns) * widest + size / 2, y = from.height + size * .8 + Math.floor(at / columns) * line;
    context.fillStyle = `rgb(${model.palette[classes.indexOf(each)]})`;
    context.fillRect(x, y, size, size);
    context.fillStyle = '#202024';
    context.fillText(entry(each), x + size * 1.4, y);
  });
  download(await new Promise(done => page.toBlob(done, 'image/png')), `${stem()}.segments.png`);
}

/** An 8-bit PNG of class indices, 255 = background, with the class names in a text chunk. */
async function saveMask() {
  if (!scores) return;
  const [width, height] = fit(4096), values = visible(segment(width, height));
  const lines = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) lines.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const packed = new Uint8Array(await new Response(new Blob([lines]).stream().pipeThrough(new CompressionStream('deflate'))).arrayBuffer());
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint8(8, 8);
  const names = new TextEncoder().encode(`classes\0\0\0\0\0${JSON.stringify(scores.classes)}`);
  const parts = [chunk('IHDR', new Uint8Array(head.buffer)), chunk('iTXt', names), chunk('IDAT', packed), chunk('IEND', new Uint8Array())];
  download(new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...parts], {type: 'image/png'}), `${stem()}.mask.png`);
}

const TABLE = Uint32Array.from({length: 256}, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? value >>> 1 ^ 0xedb88320 : value >>> 1;
  return value;
});

function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length), place = new DataView(bytes.buffer);
  place.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  let sum = ~0;
  for (let at = 4; at < 8 + data.length; at++) sum = TABLE[(sum ^ bytes[at]) & 255] ^ sum >>> 8;
  place.setUint32(8 + data.length, ~sum >>> 0);
  return bytes;
}

// ---- user input

let current = -1;
async function example(number) {
  if (!model.examples.length) return;
  current = (number + model.examples.length) % model.examples.length;
  try { look(await (await ask(`examples/${current}`)).blob(), model.examples[current], current); }
  catch (why) { say(why.message, true); }
}

function listen() {
  $('words').addEventListener('input', () => { const since = performance.now(); $('expression').value = ''; read(); count(); compare(since); });
  $('expression').addEventListener('change', () => { const since = performance.now(); read(); count(); compare(since); });
  for (const slider of ['threshold', 'opacity']) $(slider).addEventListener('input', draw);
  for (const pick of document.querySelectorAll('[name=view]')) pick.addEventListener('change', () => { heatOf = null; draw(); });
  for (const button of document.querySelectorAll('[data-choose]')) button.addEventListener('click', () => $('file').click());
  $('file').addEventListener('change', () => { if ($('file').files[0]) look($('file').files[0], $('file').files[0].name); $('file').value = ''; });
  $('save').addEventListener('click', savePicture);
  $('mask').addEventListener('click', saveMask);
  $('canvas').addEventListener('pointermove', point);
  $('canvas').addEventListener('pointerdown', point);
  $('canvas').addEventListener('pointerleave', () => { $('tip').hidden = true; });
  document.addEventListener('dragover', event => { event.preventDefault(); $('drop').classList.add('over'); });
  document.addEventListener('dragleave', event => { if (!event.relatedTarget) $('drop').classList.remove('over'); });
  document.addEventListener('drop', event => {
    event.preventDefault();
    $('drop').classList.remove('over');
    const file = event.dataTransfer.files[0];
    if (file) look(file, file.name);
  });
  document.addEventListener('paste', event => {
    const file = [...event.clipboardData.files].find(file => file.type.startsWith('image/'));
    if (file) look(file, file.name || 'pasted image');
  });
  addEventListener('resize', draw);
  document.addEventListener('keydown', key);
  document.addEventListener('keyup', event => { if (event.key === ' ' && peek) { peek = false; draw(); } });
  addEventListener('blur', () => { if (peek) { peek = false; draw(); } });
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = event.target;
  if (event.key === 'Escape') { at.blur(); $('tip').hidden = true; return; }
  if (at.matches('textarea, input[type=text], input[type=range], input[type=radio]')) return;
  // Space keeps its usual function on buttons.
  if (at.matches('button, summary') && event.key === ' ') return;
  const slide = by => { $('threshold').value = +$('threshold').value + by; draw(); };
  const keys = {
    '/': () => { $('words').focus(); $('words').setSelectionRange(1e6, 1e6); },
    ' ': () => { if (!peek) { peek = true; draw(); } },
    'h': () => { document.querySelector('[value=heat]').checked = true; heatOf = classes.length ? ((heatOf ?? -1) + 1) % classes.length : null; draw(); },
    '0': () => { for (const each of classes) each.hidden = false; heatOf = null; document.querySelector('[value=segments]').checked = true; draw(); },
    '[': () => slide(-2), ']': () => slide(2), 's': savePicture, 'm': saveMask, 'o': () => $('file').click(),
    'ArrowLeft': () => example(current - 1), 'ArrowRight': () => example(current + 1),
  };
  const act = /^[1-9]$/.test(event.key) ? () => toggle(event.key - 1) : keys[event.key];
  if (act) { event.preventDefault(); act(); }
}

async function start() {
  model = await (await ask('model')).json();
  $('model').textContent = `${model.name}, ${model.objective}, step ${model.step}, ${model.size} px`;
  const bar = $('bar').getContext('2d');
  model.ramp.forEach((colour, x) => { bar.fillStyle = `rgb(${colour})`; bar.fillRect(x, 0, 1, 1); });
  $('words').value = model.words;
  read();
  list();
  listen();
  if (model.examples.length) {
    $('examples').hidden = false;
    $('examples').append(...model.examples.slice(0, 48).map((name, number) => {
      const button = Object.assign(document.createElement('button'), {type: 'button', title: name});
      button.dataset.number = number;
      button.append(Object.assign(new Image(), {src: `examples/${number}`, alt: name, loading: 'lazy'}));
      button.addEventListener('click', () => example(number));
      return button;
    }));
    example(0);
  }
}

start().catch(why => say(why.message, true));
