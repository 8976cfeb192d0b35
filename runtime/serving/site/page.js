"use strict";
// Pictures are sent one or two at a time; what became of each is shown in the list, and one of them in the viewer.
(() => {
  const byId = (id) => document.getElementById(id);
  const AT_ONCE = 2, LOOK = 300; // requests; milliseconds between two looks at the progress
  const MOST_SHOWN = 120e6; // pixels: browsers refuse to decode much more
  const EXTENSIONS = {
    "image/png": ["png", "apng"], "image/jpeg": ["jpg", "jpeg", "jfif", "jpe", "jfi"], "image/webp": ["webp"],
    "image/tiff": ["tif", "tiff"], "image/bmp": ["bmp", "dib"], "image/gif": ["gif"], "image/avif": ["avif"],
  };
  const items = [];
  let limits = null, chosen = null, token = sessionStorage.getItem("token");

  const element = (kind, className, text = "") => Object.assign(document.createElement(kind), { className, textContent: text });
  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
  const inWords = (bytes) => {
    const [unit, name] = bytes < 2 ** 20 ? [2 ** 10, "KiB"] : [2 ** 20, "MiB"];
    return `${(bytes / unit).toLocaleString("en", { maximumFractionDigits: 1 })} ${name}`;
  };
  const authorized = () => (token ? { Authorization: `Bearer ${token}` } : {});
  const later = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  async function get(path) {
    const answer = await fetch(path, { headers: authorized() });
    if (!answer.ok) throw Object.assign(new Error((await answer.json()).error), { status: answer.status });
    return answer.json();
  }

  /** Ask what the service offers; without the right token, ask for that. */
  async function begin() {
    try {
      const [models, taken] = await Promise.all([get("/models"), get("/limits")]);
      limits = taken;
      byId("model").replaceChildren(
        ...models.map(({ name, scale }) => new Option(`${scale}× (${name})`, name)),
      );
      byId("format").append(...taken.formats.map((name) => new Option(name.toUpperCase(), name)));
      const most = (taken.pixels / 1e6).toLocaleString("en", { maximumFractionDigits: 1 });
      byId("taken").textContent = `up to ${most} megapixels and ${inWords(taken.bytes)} each`;
      byId("access").hidden = true;
      next();
    } catch (error) {
      byId("access").hidden = error.status !== 401;
      if (error.status === 401) byId("token").focus();
      else byId("taken").textContent = sentence("the service does not answer; load this page again when it is back");
    }
  }

  function add(files) {
    for (const file of files) {
      const item = { file, name: file.name || "pasted.png", state: "new" };
      items.push(item);
      row(item);
      preview(item);
    }
    document.body.classList.toggle("empty", items.length === 0);
    if (!chosen && items.length) choose(items[0]);
    next();
  }

  /** A loaded picture of a blob; undefined where the browser does not show that kind. */
  async function loaded(url, name) {
    const image = Object.assign(new Image(), { alt: name, src: url });
    try {
      await image.decode();
      return image;
    } catch {
      return undefined;
    }
  }

  async function preview(item) {
    item.before = URL.createObjectURL(item.file);
    item.thumbnail = await loaded(item.before, "");
    if (item.thumbnail) item.thumb.replaceChildren(item.thumbnail);
    if (item === chosen) show();
  }

  function row(item) {
    item.row = element("li", "");
    const choosing = element("button", "choose");
    choosing.type = "button";
    choosing.addEventListener("click", () => choose(item));
    item.thumb = element("span", "thumb", item.name.split(".").pop().slice(0, 4).toUpperCase());
    const text = element("span", "text");
    item.told = element("span", "state");
    text.append(element("span", "name", item.name), item.told);
    choosing.append(item.thumb, text);
    item.save = element("a", "save", "↓");
    item.again = element("button", "again", "↻");
    item.again.type = "button";
    item.again.addEventListener("click", () => { item.state = "new"; next(); });
    const remove = element("button", "remove", "×");
    remove.type = "button";
    remove.addEventListener("click", () => drop(item));
    for (const [act, word] of [[item.save, "Download"], [item.again, "Enlarge again"], [remove, "Remove"]]) {
      act.title = word;
      act.setAttribute("aria-label", `${word} ${item.name}`);
    }
    const acts = element("span", "acts");
    acts.append(item.save, item.again, remove);
    item.bar = element("progress", "");
    item.bar.max = 1;
    item.bar.setAttribute("aria-label", `Progress of ${item.name}`);
    item.row.append(choosing, acts, item.bar);
    byId("list").append(item.row);
    tell(item, "waiting");
  }

  /** Show a state in a row, and how much of it is done, from 0 to 1; undefined where that is not known. */
  function tell(item, text, part) {
    item.text = sentence(text).replace(/\.$/, item.state === "failed" ? "." : "");
    item.told.textContent = item.text;
    const busy = item.state === "busy";
    item.bar.hidden = !busy;
    if (part === undefined) item.bar.removeAttribute("value");
    else item.bar.value = part;
    item.row.className = item.state + (item === chosen ? " chosen" : "");
    item.save.hidden = item.state !== "done";
    item.again.hidden = !(item.state === "failed" || (item.state === "done" && item.asked !== settings().toString()));
    byId("all").hidden = items.length < 2 && !items.some((each) => each.state === "done");
    byId("download-all").disabled = !items.some((each) => each.state === "done");
    if (item === chosen && item.state !== "done") byId("pending-text").textContent = item.text;
  }

  function settings() {
    const query = new URLSearchParams({ model: byId("model").value });
    if (byId("format").value) query.set("format", byId("format").value);
    return query;
  }

  function next() {
    if (!limits) return;
    for (const item of items) {
      if (items.filter((each) => each.state === "busy").length >= AT_ONCE) return;
      if (item.state === "new") enlarge(item);
    }
  }

  function fail(item, text) {
    item.state = "failed";
    tell(item, text);
    byId("said").textContent = `${item.name}: ${item.text}`;
    if (item === chosen) show();
    next();
  }

  async function enlarge(item) {
    const query = settings();
    Object.assign(item, { state: "busy", asked: query.toString(), blob: undefined });
    if (item.after) URL.revokeObjectURL(item.after);
    item.after = undefined;
    if (item === chosen) show();
    if (item.file.size > limits.bytes) {
      fail(item, `the file has ${inWords(item.file.size)}, and at most ${inWords(limits.bytes)} are taken`);
      return;
    }
    tell(item, "sending", 0);
    const answer = await send(item, query);
    if (item.state !== "busy") return; // it was removed
    const wait = Number(answer.getResponseHeader("Retry-After"));
    if (answer.status === 200) await finish(item, answer);
    else if (wait > 0) {
      tell(item, "the service is busy; waiting for a place");
      await later(wait * 1000);
      if (item.state === "busy") { item.state = "new"; next(); }
    } else if (answer.status === 401) {
      item.state = "new";
      limits = null;
      begin();
    } else if (answer.status === 0) fail(item, "the service did not answer; try again");
    else fail(item, JSON.parse(await answer.response.text()).error);
  }

  /** Send a picture and follow its progress; resolves to the finished XMLHttpRequest. */
  function send(item, query) {
    const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    query.set("id", id);
    return new Promise((done) => {
      const request = new XMLHttpRequest();
      item.request = request;
      request.open("POST", `/enlarge?${query}`);
      request.responseType = "blob";
      for (const [name, value] of Object.entries(authorized())) request.setRequestHeader(name, value);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.addEventListener("progress", (event) => {
        if (item.state === "busy" && event.total) tell(item, `sending ${Math.floor((100 * event.loaded) / event.total)} %`, event.loaded / event.total);
      });
      request.upload.addEventListener("load", () => follow(item, request, id));
      request.addEventListener("progress", (event) => {
        if (request.status === 200 && event.lengthComputable) tell(item, "receiving", event.loaded / event.total);
      });
      request.addEventListener("loadend", () => done(request));
      request.send(item.file);
    });
  }

  async function follow(item, request, id) {
    tell(item, "waiting");
    while (request.readyState < XMLHttpRequest.HEADERS_RECEIVED && item.state === "busy") {
      const found = await get(`/progress/${id}`).catch(() => null);
      if (request.readyState >= XMLHttpRequest.HEADERS_RECEIVED || item.state !== "busy") return;
      if (found?.state === "waiting") tell(item, found.before ? `waiting for ${found.before} before it` : "waiting");
      else if (found?.state === "computing") {
        if (found.of) tell(item, `enlarging, ${Math.floor((100 * found.done) / found.of)} %`, found.done / found.of);
        else tell(item, "enlarging");
      }
      await later(LOOK);
    }
  }

  async function finish(item, answer) {
    const told = (name) => answer.getResponseHeader(`Dvmsr-${name}`);
    const kind = answer.getResponseHeader("Content-Type");
    const [, stem, extension = ""] = item.name.match(/^(.*?)(?:\.([^.]*))?$/);
    const fitting = EXTENSIONS[kind] ?? ["png"];
    const kept = fitting.includes(extension.toLowerCase()) ? extension : fitting[0];
    item.blob = answer.response;
    item.after = URL.createObjectURL(item.blob);
    Object.assign(item, { state: "done", warnings: JSON.parse(told("Warnings")), result: `${stem}_x${told("Scale")}.${kept}` });
    [item.width, item.height] = told("Output-Size").split("x").map(Number);
    item.save.href = item.after;
    item.save.download = item.result;
    tell(item, `${item.width} × ${item.height}, ${inWords(item.blob.size)}${item.warnings.length ? ", with a note" : ""}`);
    byId("said").textContent = `${item.name} is ready`;
    item.picture = item.width * item.height > MOST_SHOWN ? undefined : await loaded(item.after, "after");
    if (item === chosen) show();
    next();
  }

  function choose(item) {
    chosen = item;
    for (const each of items) {
      each.row.classList.toggle("chosen", each === item);
      each.row.querySelector(".choose").setAttribute("aria-current", each === item);
    }
    show();
  }

  function pane(image, name, className) {
    const figure = element("figure", className), caption = element("figcaption", "");
    const copy = image.cloneNode();
    copy.alt = name;
    caption.append(element("span", "name", name));
    figure.append(copy, caption);
    return figure;
  }

  /** The chosen picture: before and after, or what there is yet. */
  function show() {
    byId("view").hidden = !chosen;
    if (!chosen) return;
    const both = chosen.state === "done" && chosen.picture && chosen.thumbnail;
    byId("shown").hidden = !both;
    byId("pending").hidden = Boolean(both);
    byId("pending").className = chosen.state;
    byId("caption").textContent = (chosen.state === "done" ? [chosen.result, ...chosen.warnings.map(sentence)] : [chosen.name]).join("\n");
    if (both) {
      const pictures = byId("pictures");
      pictures.replaceChildren(pane(chosen.thumbnail, "before", "input"), pane(chosen.picture, "after", ""));
      Object.assign(pictures.dataset, { width: chosen.width, height: chosen.height, a: 0, b: 1 });
      viewer.open(true);
      return;
    }
    byId("original").hidden = !chosen.thumbnail;
    if (chosen.thumbnail) Object.assign(byId("original"), { src: chosen.before, alt: chosen.name });
    byId("pending-text").textContent = chosen.state === "done" ? "It is ready. This browser does not show it; download it." : chosen.text;
  }

  function drop(item) {
    item.state = "removed";
    item.request?.abort();
    item.row.remove();
    items.splice(items.indexOf(item), 1);
    for (const url of [item.before, item.after]) if (url) URL.revokeObjectURL(url);
    document.body.classList.toggle("empty", items.length === 0);
    if (item === chosen) {
      chosen = null;
      if (items.length) choose(items[0]);
      else show();
    }
    byId("all").hidden = items.length < 2 && !items.some((each) => each.state === "done");
    next();
  }

  async function downloadAll() {
    const done = items.filter((item) => item.state === "done");
    if (done.length === 1) {
      done[0].save.click();
      return;
    }
    const used = new Set();
    const named = done.map((item) => {
      let name = item.result;
      for (let n = 2; used.has(name); n += 1) name = item.result.replace(/(\.[^.]*)$/, ` (${n})$1`);
      used.add(name);
      return [name, item.blob];
    });
    const url = URL.createObjectURL(await zip(named));
    Object.assign(document.createElement("a"), { href: url, download: "enlarged.zip" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  byId("files").addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.add("dragging");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    add([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    add(files);
  });
  byId("settings").addEventListener("change", () => {
    for (const item of items) if (item.state === "done" || item.state === "failed") tell(item, item.text);
  });
  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value;
    sessionStorage.setItem("token", token);
    begin();
  });
  byId("settings").addEventListener("submit", (event) => event.preventDefault());
  byId("download-all").addEventListener("click", downloadAll);
  byId("clear").addEventListener("click", () => { for (const item of [...items]) drop(item); });
  begin();
})();
