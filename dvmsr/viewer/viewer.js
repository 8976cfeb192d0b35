"use strict";
// One place in the picture (centre) and one zoom serve all panes; views are CSS classes of #stage.
// `viewer.open()` shows the figures in #pictures, whose data say how large they are and which are A and B.
const viewer = (() => {
  const byId = (id) => document.getElementById(id);
  const stage = byId("stage"), pictures = byId("pictures"), divider = byId("divider");
  const MOST = 32, STEP = 1.25, KEY_STEP = 2;
  const state = { view: "slider", split: 50, gain: 3 };
  let panes = [], width = 1, height = 1;
  let fitted = true; // until the zoom is changed, it follows the size of the window

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const pane = () => panes.find((figure) => figure.offsetParent !== null).getBoundingClientRect();

  function fit() {
    const box = pane();
    Object.assign(state, { x: width / 2, y: height / 2 });
    state.zoom = Math.min(box.width / width, box.height / height, MOST) || 1;
  }

  /** Insets of the whole screen pixels that a picture covers: at a part of one, its edge, the
   * difference of equal pictures is not zero. */
  function inside(box, x, y) {
    const up = (edge, origin) => Math.ceil((origin + edge) * devicePixelRatio) / devicePixelRatio - origin;
    const down = (edge, origin) => Math.floor((origin + edge) * devicePixelRatio) / devicePixelRatio - origin;
    const sides = [
      up(y, box.top), box.width - down(x + width * state.zoom, box.left),
      box.height - down(y + height * state.zoom, box.top), up(x, box.left),
    ];
    return sides.map((inset) => `${Math.max(inset, 0)}px`).join(" ");
  }

  /** Columns of the view of all pictures: as many as make them largest. */
  function columns() {
    const box = stage.getBoundingClientRect();
    const size = (n) => Math.min(box.width / n / width, box.height / Math.ceil(panes.length / n) / height);
    return panes.map((_, k) => k + 1).reduce((n, m) => (size(m) > size(n) ? m : n));
  }

  const visible = () => panes.length > 0 && stage.offsetParent !== null;

  function draw() {
    if (!visible()) return;
    stage.className = `live ${state.view}`;
    byId("controls").className = panes.length > 2 ? state.view : `${state.view} two`;
    panes.forEach((figure, k) => {
      figure.classList.toggle("a", k === state.a);
      figure.classList.toggle("b", k === state.b);
    });
    stage.style.setProperty("--columns", columns());
    if (fitted) fit();
    const box = pane();
    stage.classList.toggle("magnified", state.zoom > 1);
    const x = box.width / 2 - state.x * state.zoom, y = box.height / 2 - state.y * state.zoom;
    const values = {
      "--width": `${width}px`, "--height": `${height}px`, "--k": state.zoom,
      "--x": `${x}px`, "--y": `${y}px`, "--inside": inside(box, x, y),
      "--split": `${state.split}%`, "--gain": 2 ** state.gain,
    };
    for (const [name, value] of Object.entries(values)) stage.style.setProperty(name, value);
    divider.hidden = state.view !== "slider";
    divider.setAttribute("aria-valuenow", Math.round(state.split));
    divider.setAttribute("aria-valuetext", `${Math.round(state.split)} % of A, the rest of B`);
    byId("zoom").value = `${Math.round(100 * state.zoom)} %`;
    byId("gain-value").value = `${2 ** state.gain}×`;
    byId("a").value = state.a;
    byId("b").value = state.b;
    for (const button of document.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", button.dataset.view === state.view);
    }
  }

  function move(dx, dy) {
    fitted = false;
    state.x = clamp(state.x - dx / state.zoom, 0, width);
    state.y = clamp(state.y - dy / state.zoom, 0, height);
    draw();
  }

  /** Zoom by a factor so that what is at (px, py) of its pane, by default the middle, stays there. */
  function zoom(factor, px, py) {
    const box = pane();
    const before = state.zoom;
    fitted = false;
    const least = Math.min(1, box.width / width, box.height / height) / 2;
    state.zoom = clamp(before * factor, least, MOST);
    const shift = 1 / before - 1 / state.zoom;
    state.x = clamp(state.x + ((px ?? box.width / 2) - box.width / 2) * shift, 0, width);
    state.y = clamp(state.y + ((py ?? box.height / 2) - box.height / 2) * shift, 0, height);
    draw();
  }

  function split(percent) {
    state.split = clamp(percent, 0, 100);
    draw();
  }

  const show = (view) => { state.view = view; draw(); };
  const fitAgain = () => { fitted = true; draw(); };
  const full = () => zoom(1 / state.zoom);

  /** A and B are two pictures: taking for one what the other shows exchanges them. */
  function choose(which, k) {
    const other = which === "a" ? "b" : "a";
    if (state[other] === k) state[other] = state[which];
    state[which] = k;
    draw();
  }

  for (const which of ["a", "b"]) {
    byId(which).addEventListener("change", (event) => choose(which, Number(event.target.value)));
  }
  byId("gain").addEventListener("input", (event) => {
    state.gain = Number(event.target.value);
    draw();
  });
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => show(button.dataset.view));
  }
  byId("in").addEventListener("click", () => zoom(STEP));
  byId("out").addEventListener("click", () => zoom(1 / STEP));
  byId("fit").addEventListener("click", fitAgain);
  byId("full").addEventListener("click", full);

  document.addEventListener("keydown", (event) => {
    if (!visible() || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("select, input")) return;
    const arrows = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const arrow = arrows[event.key];
    const focused = event.target === divider;
    const slides = state.view === "slider";
    if (arrow && event.shiftKey) move(60 * arrow[0], 60 * arrow[1]);
    else if (slides && arrow?.[0]) split(state.split - KEY_STEP * arrow[0]);
    else if (focused && arrow) split(state.split + KEY_STEP * arrow[1]);
    else if (focused && event.key === "PageUp") split(state.split + 10);
    else if (focused && event.key === "PageDown") split(state.split - 10);
    else if (focused && event.key === "Home") split(0);
    else if (focused && event.key === "End") split(100);
    else if (event.key === "+" || event.key === "=") zoom(STEP);
    else if (event.key === "-") zoom(1 / STEP);
    else if (event.key === "0") fitAgain();
    else if (event.key === "1") full();
    else return;
    event.preventDefault();
  });

  /** The position of an event in the pane that it is over. */
  function place(event) {
    const box = pane(), whole = stage.getBoundingClientRect();
    const gap = state.view === "grid" ? 2 : 0;
    return [(event.clientX - whole.left) % (box.width + gap), (event.clientY - whole.top) % (box.height + gap)];
  }
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 20 : 1;
    zoom(2 ** (clamp(-event.deltaY * lines, -200, 200) / 200), ...place(event));
  }, { passive: false });

  const held = new Map(); // pointers that are down, and where
  let sliding = false, dragged = false;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    sliding = held.size === 0 && event.target === divider;
    if (held.size === 0) dragged = false;
    held.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const others = [...held.values()].filter((each) => each.pointerId !== event.pointerId);
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    if (!dragged && Math.hypot(dx, dy) < 4) return; // a click, so far
    dragged = true;
    held.set(event.pointerId, event);
    if (sliding) slideTo(event);
    else if (others.length) pinch(others[0], before, event, dx, dy);
    else move(dx, dy);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => {
      const last = held.delete(event.pointerId) && held.size === 0;
      if (end === "pointerup" && last && !dragged && state.view === "slider") slideTo(event);
    });
  }

  function slideTo(event) {
    const box = stage.getBoundingClientRect();
    split((100 * (event.clientX - box.left)) / box.width);
  }

  function pinch(fixed, before, after, dx, dy) {
    const apart = (event) => Math.hypot(event.clientX - fixed.clientX, event.clientY - fixed.clientY);
    const middle = { clientX: (fixed.clientX + after.clientX) / 2, clientY: (fixed.clientY + after.clientY) / 2 };
    move(dx / 2, dy / 2);
    zoom(apart(after) / Math.max(apart(before), 1), ...place(middle));
  }

  /** Show the figures that are in #pictures now; with `keep`, at the place and zoom of those before. */
  function open(keep = false) {
    panes = [...pictures.querySelectorAll("figure")];
    const before = width;
    [width, height, state.a, state.b] = ["width", "height", "a", "b"].map((x) => Number(pictures.dataset[x]));
    if (!keep || before !== width) fitted = true;
    for (const which of ["a", "b"]) {
      byId(which).replaceChildren(
        ...panes.map((figure, k) => new Option(figure.querySelector(".name").textContent, k)),
      );
    }
    byId("controls").hidden = byId("keys").hidden = false;
    draw();
  }

  new ResizeObserver(draw).observe(stage);
  return { open };
})();
