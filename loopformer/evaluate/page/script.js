'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const boards = data.boards || [];
  if (!boards.length) return;

  const $ = (id) => document.getElementById(id);
  const INTERVAL = 900;
  let board = boards[0], which = 0, step = 0, timer = null;

  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;
  const short = (x) => (x >= 0.01 ? x.toFixed(2) : String(Number(x.toPrecision(1))));

  function parts() {
    const [rows, columns] = board.shape;
    const [high, wide] = board.box || [rows, columns];
    const cells = board.clues.map((clue, i) => {
      const r = Math.floor(i / columns), c = i % columns;
      const cell = make('i', clue ? 'given' : '', clue || '');
      cell.classList.toggle('last', c === columns - 1);
      cell.classList.toggle('bottom', r === rows - 1);
      cell.classList.toggle('east', (c + 1) % wide === 0 && c < columns - 1);
      cell.classList.toggle('south', (r + 1) % high === 0 && r < rows - 1);
      return cell;
    });
    $('board').style.setProperty('--columns', columns);
    $('board').replaceChildren(...cells);
  }

  // Heights are logarithmic, from a thirtieth of the threshold to the largest.
  function bars() {
    const values = board.steps.map((s) => s.residual).filter((r) => r > 0);
    const limit = data.threshold;
    const low = (limit || Math.min(...values, 1) * 10) / 30;
    const high = Math.max(...values, limit || 0, low * 10);
    const height = (r) =>
      100 * Math.max(0, Math.log(Math.max(r, low) / low) / Math.log(high / low));
    const strip = [make('span')];
    board.steps.forEach((s, i) => {
      const bar = make('button');
      bar.type = 'button';
      bar.tabIndex = -1;
      bar.title = s.residual === null ? '' : `state change ${short(s.residual)}`;
      bar.setAttribute('aria-label', `recurrence ${i + 1}`);
      const known = s.residual !== null;
      bar.style.setProperty('--height', known ? `max(2px, ${height(s.residual) * 0.78}%)` : '0');
      bar.addEventListener('click', () => { stop(); go(i + 1); });
      strip.push(bar);
    });
    const row = document.querySelector('.scrub');
    row.style.setProperty('--steps', board.steps.length);
    $('slider').max = board.steps.length;
    $('strip').replaceChildren(...strip, ...marks(limit, height));
  }

  function marks(limit, height) {
    const found = [];
    const columns = board.steps.length + 1;
    if (limit) {
      const line = make('div', 'limit');
      line.style.bottom = `${height(limit) * 0.78}%`;
      line.append(make('span', '', `threshold ${limit}`));
      found.push(line);
    }
    if (board.halted_at) {
      const side = board.halted_at > columns * 0.6 ? 'flag left' : 'flag';
      const flag = make('div', side);
      flag.style.left = `calc(${(100 * (board.halted_at + 1)) / columns}% - 1px)`;
      flag.append(make('span', '', 'halts here'));
      found.push(flag);
    }
    return found;
  }

  // A guess among n digits is 1/n sure: that is where colour begins.
  function aboveChance(sure) {
    const chance = 1 / Math.max(...board.solution, 2);
    return Math.max(0, (sure - chance) / (1 - chance));
  }

  function cellsAt() {
    const now = step ? board.steps[step - 1] : null;
    let wrong = 0;
    [...$('board').children].forEach((cell, i) => {
      if (board.clues[i]) return;
      const right = now && now.digits[i] === board.solution[i];
      wrong += now && !right ? 1 : 0;
      cell.textContent = now ? now.digits[i] : '';
      cell.className = cell.className.replace(/ ?(guess|wrong)/g, '');
      if (!now) return;
      cell.classList.add('guess');
      cell.classList.toggle('wrong', !right);
      const sure = now.confidence[i] ?? 0;
      cell.style.setProperty('--sure', `${100 * aboveChance(sure)}%`);
      cell.title = `${Math.round(100 * sure)} % sure`;
    });
    return wrong;
  }

  function words(wrong) {
    const blanks = board.clues.filter((clue) => !clue).length;
    if (!step) return `${plural(blanks, 'blank')} to fill. Nothing computed yet.`;
    const change = board.steps[step - 1].residual;
    let text = wrong ? `${wrong} of ${blanks} blanks wrong.` : 'Solved.';
    if (change !== null) text += ` State change ${short(change)}.`;
    if (step === board.halted_at) text += ' It stops here.';
    if (board.halted_at && step > board.halted_at)
      text += ` Not needed: it stopped after ${board.halted_at}.`;
    return text;
  }

  function curve() {
    const share = (data.exact || {})[step];
    const dot = document.querySelector(`#accuracy .dot.main[data-step="${step}"]`);
    const cursor = document.querySelector('#accuracy .cursor');
    if (!cursor) return;
    cursor.style.display = dot ? '' : 'none';
    if (dot) ['cx', 'cy'].forEach((key) => cursor.setAttribute(key, dot.getAttribute(key)));
    $('accuracy-now').textContent = share
      ? `After ${plural(step, 'recurrence')}: ${share} of all held-out puzzles solved.` : '';
  }

  function go(to) {
    step = Math.max(0, Math.min(board.steps.length, to));
    const wrong = cellsAt();
    $('step').textContent = step;
    $('of').textContent = `of ${plural(board.steps.length, 'recurrence')}`;
    $('status').textContent = words(wrong);
    $('board').setAttribute('aria-label', words(wrong));
    $('slider').value = step;
    [...$('strip').querySelectorAll('button')].forEach((bar, i) => {
      bar.classList.toggle('done', i < step);
      bar.classList.toggle('idle', board.halted_at > 0 && i >= board.halted_at);
    });
    curve();
  }

  function choose(index) {
    which = (index + boards.length) % boards.length;
    board = boards[which];
    $('which').textContent = boards.length > 1 ? `${which + 1} of ${boards.length}` : '';
    parts();
    bars();
    go(0);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    $('play').textContent = 'Play';
  }

  // Plays to where the board halts; from there on, to the end.
  function play() {
    if (timer) return stop();
    const last = board.steps.length;
    if (step >= last || step === board.halted_at) go(0);
    const end = board.halted_at > step ? board.halted_at : last;
    $('play').textContent = 'Pause';
    timer = setInterval(() => {
      go(step + 1);
      if (step >= end) stop();
    }, INTERVAL);
  }

  function fromHash() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    stop();
    choose((Number(wanted.get('board')) || 1) - 1);
    go(Number(wanted.get('step')) || 0);
  }

  $('play').addEventListener('click', play);
  $('back').addEventListener('click', () => { stop(); go(step - 1); });
  $('on').addEventListener('click', () => { stop(); go(step + 1); });
  $('other').addEventListener('click', () => { stop(); choose(which + 1); play(); });
  $('other').hidden = boards.length < 2;
  $('slider').addEventListener('input', (event) => { stop(); go(Number(event.target.value)); });
  window.addEventListener('hashchange', fromHash);
  document.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.target.tagName === 'INPUT') return;
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in moves) { stop(); go(step + moves[event.key]); }
    else if (event.key === ' ' && event.target.tagName !== 'BUTTON') play();
    else return;
    event.preventDefault();
  });

  fromHash();
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (!location.hash && !still) play();
})();
