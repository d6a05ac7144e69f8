// The list of the latest events; a picture is enlarged where it is clicked.

import { number } from "./chart.js";

const CAPACITY = 100;
const NAMES = { defect: "Defect", drift: "Drift", camera: "Camera lost" };

export class Events {
  constructor(announce) {
    this.announce = announce;
    this.known = new Map();
    this.list = document.getElementById("events");
    this.dialog = document.getElementById("enlarged");
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  clear() {
    this.known.clear();
    this.list.replaceChildren();
  }

  /** Takes changed events, oldest first; says aloud what is new unless `quiet`. */
  update(events, quiet) {
    for (const event of events) {
      const before = this.known.get(event.id);
      const item = before ? before.item : document.createElement("li");
      this.known.set(event.id, { event, item });
      this.fill(item, event, before?.event);
      if (!before) this.list.prepend(item);
      if (!quiet && !before) this.announce(`${NAMES[event.kind]} on ${event.camera}`);
      if (!quiet && before && !before.event.end && event.end) {
        this.announce(`${NAMES[event.kind]} on ${event.camera} is over`);
      }
    }
    while (this.list.children.length > CAPACITY) {
      const item = this.list.lastElementChild;
      this.known.delete(item.dataset.id);
      item.remove();
    }
    document.getElementById("no-events").hidden = this.known.size > 0;
    document.getElementById("events-count").textContent = this.known.size || "";
  }

  /** Whether an event of this kind goes on. */
  isOn(kind, camera) {
    for (const { event } of this.known.values()) {
      if (event.kind === kind && event.camera === camera && !event.end) return true;
    }
    return false;
  }

  fill(item, event, before) {
    item.dataset.id = event.id;
    item.dataset.kind = event.kind;
    item.classList.toggle("on", !event.end);
    const text = element("div", "what");
    const head = element("p", "head");
    head.append(element("strong", "", NAMES[event.kind]), " ", element("span", "", event.camera));
    const when = element("time", "", timeOf(event.start));
    when.dateTime = event.start;
    const line = element("p", "fine");
    line.append(when, " · ", event.end ? duration(event) : element("b", "going-on", "going on"));
    text.append(head, line);
    const facts = factsOf(event);
    if (facts.length) {
      const line = element("p", "fine facts");
      facts.forEach((fact, index) => line.append(index ? " " : "", element("span", "", fact)));
      text.append(line);
    }
    // A picture that stays keeps the focus that may be on it.
    if (before && before.picture === event.picture) item.lastElementChild.replaceWith(text);
    else item.replaceChildren(this.thumbnail(event), text);
  }

  thumbnail(event) {
    if (!event.picture) {
      const blank = element("span", "thumbnail blank", event.kind === "defect" ? "no picture" : "");
      if (event.kind !== "defect") blank.textContent = event.kind === "drift" ? "≈" : "⊘";
      blank.setAttribute("aria-hidden", "true");
      return blank;
    }
    const button = element("button", "thumbnail");
    button.type = "button";
    button.setAttribute("aria-label", `Enlarge the picture of ${timeOf(event.start)}, ${event.camera}`);
    const image = element("img");
    image.loading = "lazy";
    image.alt = "";
    image.src = address(event);
    button.append(image);
    button.addEventListener("click", () => this.enlarge(this.known.get(event.id).event));
    return button;
  }

  enlarge(event) {
    const title = `${NAMES[event.kind]}, ${event.camera}, ${timeOf(event.start)}`;
    document.getElementById("enlarged-title").textContent = title;
    const image = document.getElementById("enlarged-picture");
    image.src = address(event);
    image.alt = `The most anomalous frame of this event, with its heat map`;
    document.getElementById("enlarged-text").textContent =
      [event.class, ...factsOf(event)].filter(Boolean).join(" · ");
    this.dialog.showModal();
  }
}

function address(event) {
  return `api/events/${event.id}.jpg?v=${event.picture}`;
}

function factsOf(event) {
  if (event.kind !== "defect") return event.detail ? [event.detail] : [];
  const parts = [`peak ${number(event.peak_score)} of ${number(event.threshold)}`];
  parts.push(`${event.frames} frame${event.frames === 1 ? "" : "s"}`);
  if (event.regions) parts.push(`${event.regions} region${event.regions === 1 ? "" : "s"}`);
  return parts;
}

function duration(event) {
  const seconds = Math.max(0, (Date.parse(event.end) - Date.parse(event.start)) / 1000);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** The line's own wall clock: an operator compares it with the clock on the line. */
function timeOf(text) {
  const [date, time] = text.split("T");
  const clock = time.slice(0, 8);
  return date === new Date().toLocaleDateString("sv-SE") ? clock : `${date} ${clock}`;
}

function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}
