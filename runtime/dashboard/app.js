// The page of a running line: one WebSocket gives what is shown, controls go up as JSON.

import { Chart, number } from "./chart.js";
import { Events } from "./events.js";

const SILENCE_MS = 4000;
const FIRST_RETRY_MS = 500, LAST_RETRY_MS = 8000;
const HOLD_S = 1;
const TOO_MANY = 1013, LOGGED_OUT = 4401;
const ATTENTION = new Set(["stalled", "reconnecting", "failed"]);
const STATES = {
  connecting: ["…", "Connecting", "quiet"],
  running: ["●", "Running", "good"],
  stalled: ["!", "Stalled", "warn"],
  reconnecting: ["!", "Reconnecting", "warn"],
  ended: ["■", "Ended", "quiet"],
  failed: ["✕", "Failed", "alarm"],
};

const byId = (id) => document.getElementById(id);
const cameras = new Map();
const events = new Events((text) => { byId("announcer").textContent = text; });
const banners = new Map();
let socket = null, retryMs = FIRST_RETRY_MS, heardAt = 0, isFresh = true;
let lostAt = null, wasConnected = false;

// The connection.

function connect() {
  const base = new URL("live", location.href);
  base.protocol = base.protocol.replace("http", "ws");
  socket = new WebSocket(base);
  socket.binaryType = "arraybuffer";
  heardAt = performance.now();
  isFresh = true;
  socket.addEventListener("open", look);
  socket.addEventListener("message", ({ data }) => {
    heardAt = performance.now();
    if (typeof data === "string") takeUpdate(JSON.parse(data));
    else takePicture(data);
  });
  const mine = socket;
  socket.addEventListener("close", ({ code, reason }) => { if (mine === socket) lose(code, reason); });
}

async function lose(code, reason) {
  socket = null;
  lostAt ??= new Date();
  document.body.classList.add("lost");
  const why = code === TOO_MANY ? `${reason}.` : wasConnected
    ? `What is shown is from ${lostAt.toLocaleTimeString("sv-SE")}.` : "";
  for (const camera of cameras.values()) camera.showUnknown();
  banner("connection", "alarm", `No connection to the line. ${why} Trying again…`);
  showLine();
  if (code === LOGGED_OUT || (await isLoggedOut())) {
    location.replace("login");
    return;
  }
  setTimeout(connect, retryMs * (0.75 + Math.random() / 2));
  retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
}

async function isLoggedOut() {
  try {
    const answer = await fetch("api/state", { signal: AbortSignal.timeout(3000) });
    if (answer.ok) byId("logout").hidden = !(await answer.json()).needs_token;
    return answer.status === 401;
  } catch {
    return false;
  }
}

setInterval(() => {
  // A cable that was pulled closes nothing: silence is the only sign.
  if (socket && performance.now() - heardAt > SILENCE_MS) {
    const silent = socket;
    socket = null;
    silent.close();
    lose(0, "");
  }
}, 1000);

function look() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  const kind = document.querySelector('input[name="kind"]:checked').value;
  socket.send(JSON.stringify({ look: document.hidden ? null : kind }));
}

byId("kinds").addEventListener("change", () => { keep(); look(); });
document.addEventListener("visibilitychange", look);

function keep() {
  try {
    localStorage.setItem("kind", document.querySelector('input[name="kind"]:checked').value);
  } catch { /* a browser may have no store: the choice then lasts as long as the page */ }
}

function recall() {
  try {
    const chosen = [...document.querySelectorAll('input[name="kind"]')]
      .find((input) => input.value === localStorage.getItem("kind"));
    if (chosen) chosen.checked = true;
  } catch { /* as above */ }
}

// What comes.

function takeUpdate(update) {
  if (isFresh) {
    events.clear();
    for (const camera of cameras.values()) camera.chart.points = [];
  }
  events.update(update.events, isFresh);
  const names = new Set(update.cameras.map(({ name }) => name));
  for (const [name, camera] of cameras) {
    if (!names.has(name)) { camera.card.remove(); cameras.delete(name); }
  }
  byId("cameras").dataset.count = update.cameras.length;
  for (const view of update.cameras) {
    if (!cameras.has(view.name)) cameras.set(view.name, new Camera(view.name));
    cameras.get(view.name).update(view, update.now);
  }
  isFresh = false;
  wasConnected = true;
  lostAt = null;
  retryMs = FIRST_RETRY_MS;
  document.body.classList.remove("lost");
  banner("connection", null);
  showLine();
}

async function takePicture(data) {
  const length = new DataView(data).getUint32(0);
  const { camera, kind } = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const jpeg = new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" });
  await cameras.get(camera)?.show(jpeg, kind);
}

// What is shown.

function showLine() {
  const views = [...cameras.values()].map((camera) => camera.view).filter(Boolean);
  const any = (test) => views.some(test);
  let state = ["●", "Inspecting", "good"];
  if (!socket) state = ["✕", "No connection", "alarm"];
  else if (!views.length) state = ["…", "Connecting", "quiet"];
  else if (any((view) => events.isOn("defect", view.name))) state = ["▲", "Defect", "alarm"];
  else if (any((view) => ATTENTION.has(view.state))) state = ["!", "Camera lost", "warn"];
  else if (any((view) => view.is_drifting)) state = ["≈", "Drift", "warn"];
  else if (views.every((view) => view.state === "ended")) state = ["■", "Ended", "quiet"];
  else if (!any((view) => view.state === "running")) state = ["…", "Connecting", "quiet"];
  badge(byId("line"), state);
  document.title = `${state[1]} · Patchline`;
}

function badge(node, [glyph, word, tone]) {
  setText(node.querySelector(".glyph"), glyph);
  setText(node.querySelector(".word"), word);
  node.dataset.tone = tone;
}

function banner(key, tone, text) {
  let node = banners.get(key);
  if (tone === null) {
    node?.remove();
    banners.delete(key);
    return;
  }
  if (!node) {
    node = document.createElement("p");
    node.className = "banner";
    node.dataset.key = key;
    banners.set(key, node);
    byId("banners").append(node);
  }
  node.dataset.tone = tone;
  setText(node, text);
}

function setText(node, text) {
  // Only what changed: a screen reader reads again what is written again.
  if (node.textContent !== text) node.textContent = text;
}

class Camera {
  constructor(name) {
    this.name = name;
    this.view = null;
    this.anomalousAt = -Infinity;
    this.peak = null;
    this.card = byId("camera").content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.card.querySelector(selector);
    this.card.setAttribute("aria-label", `Camera ${name}`);
    this.find(".name").textContent = name;
    this.canvas = this.find(".picture");
    this.chart = new Chart(this.find(".chart canvas"));
    this.listen(".threshold", "api/threshold", () => ({ threshold: this.thresholdInput() }), { threshold: null });
    this.listen(".trigger", "api/trigger", () => ({ trigger: this.triggerInput() }), { trigger: null });
    byId("cameras").append(this.card);
  }

  update(view, now) {
    this.view = view;
    setText(this.find(".class"), view.class);
    setText(this.find(".source"), view.source);
    badge(this.find(".state"), STATES[view.state]);
    this.holdPeak(view, now);
    this.showVerdict(view, now);
    this.showFigures(view);
    this.showControls(view);
    this.showBanners(view);
    this.chart.update(view.points, now, view.threshold);
    const score = view.verdict ? `latest score ${number(view.verdict.score)}, ` : "";
    this.chart.canvas.setAttribute("aria-label",
      `Score of ${this.name} over the last two minutes: ${score}threshold ${number(view.threshold)}`);
  }

  /** One bad frame of thirty a second would be gone before anybody has seen it. */
  holdPeak(view, now) {
    const scores = view.points
      .filter(([time, , , anomalous]) => anomalous && now - time < HOLD_S)
      .map(([, score]) => score);
    if (view.verdict?.anomalous) scores.push(view.verdict.score);
    if (now - this.anomalousAt >= HOLD_S) this.peak = null;
    if (!scores.length) return;
    this.anomalousAt = now;
    this.peak = Math.max(this.peak ?? -Infinity, ...scores);
  }

  showVerdict(view, now) {
    const tile = this.find(".verdict");
    let shown = ["✓", "Good", "good"];
    if (view.state === "stalled" || view.state === "reconnecting") shown = ["!", "No signal", "warn"];
    else if (view.state !== "running" && view.state !== "ended") shown = STATES[view.state];
    else if (!view.verdict) shown = ["…", "No frame yet", "quiet"];
    else if (events.isOn("defect", this.name)) shown = ["▲", "Defect", "alarm"];
    else if (now - this.anomalousAt < HOLD_S) shown = ["▲", "Anomalous", "alarm"];
    tile.dataset.tone = shown[2];
    setText(tile.querySelector(".glyph"), shown[0]);
    setText(tile.querySelector(".text"), shown[1]);
    const isStale = view.state !== "running";
    this.card.classList.toggle("stale", isStale);
    const score = isStale ? null : this.peak ?? view.verdict?.score ?? null;
    setText(tile.querySelector(".value"), number(score));
    setText(tile.querySelector(".limit"), `of ${number(view.threshold)}`);
    const share = score !== null && view.threshold > 0 ? score / view.threshold : 0;
    tile.querySelector(".fill").style.width = `${Math.min(100, Math.max(0, share * 66.7))}%`;
  }

  showUnknown() {
    setText(this.find(".verdict .glyph"), "?");
    setText(this.find(".verdict .text"), "Unknown");
  }

  showFigures(view) {
    const milliseconds = (value) => (value === null ? "–" : `${value < 100 ? value.toFixed(1) : Math.round(value)} ms`);
    const whole = (value) => value.toLocaleString("en");
    const texts = {
      fps: view.fps === null ? "–" : view.fps.toFixed(1),
      frames: whole(view.frames),
      anomalous: whole(view.anomalous),
      dropped: whole(view.dropped),
      p50: milliseconds(view.p50_ms),
      p95: milliseconds(view.p95_ms),
      p99: milliseconds(view.p99_ms),
    };
    for (const [name, text] of Object.entries(texts)) setText(this.find(`dd.${name}`), text);
  }

  showControls(view) {
    const [needed, frames] = view.trigger.split("/");
    this.offer("threshold", number(view.threshold));
    this.offer("needed", needed);
    this.offer("window", frames);
    const own = this.find(".threshold .own");
    const isOwn = view.threshold === view.own_threshold;
    setText(own, isOwn ? "as configured" : `Back to the configured one, ${number(view.own_threshold)}`);
    own.disabled = isOwn;
  }

  /** Writes what holds into a field, unless somebody is about to change it. */
  offer(name, text) {
    const input = this.find(`input[name="${name}"]`);
    if (input.form.dataset.edited || document.activeElement === input) return;
    if (input.value !== text) input.value = text;
  }

  showBanners(view) {
    const lost = ATTENTION.has(view.state);
    const detail = view.detail ? `: ${view.detail}` : ".";
    banner(`state ${this.name}`, lost ? STATES[view.state][2] : null,
      `${this.name} is ${view.state}${detail}`);
    banner(`drift ${this.name}`, view.is_drifting ? "warn" : null,
      `${this.name} drifts: its scores have moved away from those of the normal pictures. Look at light, lens and focus.`);
  }

  async show(jpeg, kind) {
    const bitmap = await createImageBitmap(jpeg);
    if (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height) {
      this.canvas.width = bitmap.width;
      this.canvas.height = bitmap.height;
    }
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    this.card.classList.add("seen");
    const what = { heat: "frame with its heat map", picture: "frame", influence: "frame with its influence map" };
    this.canvas.dataset.kind = kind;
    this.canvas.setAttribute("aria-label", `Newest ${what[kind]} of ${this.name}`);
  }

  thresholdInput() {
    const input = this.find('input[name="threshold"]');
    // The field shows four digits; sending them unasked would move the threshold a little.
    if (!input.form.dataset.edited) return this.view.threshold;
    if (input.value.trim() === "" || !Number.isFinite(input.valueAsNumber)) {
      throw new Error("Expected a number as threshold.");
    }
    return input.valueAsNumber;
  }

  triggerInput() {
    return `${this.find('input[name="needed"]').value}/${this.find('input[name="window"]').value}`;
  }

  listen(selector, path, wanted, own) {
    const form = this.find(selector);
    form.addEventListener("input", () => { form.dataset.edited = "yes"; });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(form, path, wanted);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") delete form.dataset.edited;
    });
    form.querySelector(".own").addEventListener("click", () => this.send(form, path, () => own));
  }

  async send(form, path, wanted) {
    try {
      const answer = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ camera: this.name, ...wanted() }),
      });
      if (answer.status === 401) {
        location.replace("login");
        return;
      }
      const { error, warning } = await answer.json();
      if (!error) delete form.dataset.edited;
      this.say(error ? "alarm" : warning ? "warn" : "good", error || warning || "Holds from the next frame on, and after a restart.");
    } catch (error) {
      this.say("alarm", error instanceof TypeError ? "The line does not answer; nothing was changed." : error.message);
    }
  }

  say(tone, text) {
    const message = this.find(".side > .message");
    message.dataset.tone = tone;
    message.textContent = text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
    clearTimeout(this.silence);
    if (tone === "good") this.silence = setTimeout(() => { message.textContent = ""; }, 6000);
  }
}

byId("logout").addEventListener("click", async () => {
  await fetch("api/logout", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
  location.replace("login");
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const camera of cameras.values()) camera.chart.draw();
});

recall();
isLoggedOut().then((out) => (out ? location.replace("login") : connect()));
