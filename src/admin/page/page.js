// Asks the service once a second and shows what it says. Texts go in as text, never as
// markup. Nothing here decides: the figures are those of `holdfast status`.
"use strict";

// Reasons that are shown of the consumers without being asked for.
const REASONS_MAX = 3;

const LOOK_EVERY_MS = 1000;
const ANSWER_WAIT_MS = 5000;
const RINGS = {
  fine: { windowMs: 600_000, max: 600, said: "10 min" },
  coarse: { windowMs: 86_400_000, max: 1440, said: "24 h" },
};

// ---- what is known

const known = { ring: "fine", points: { fine: [], coarse: [] }, look: null, answeredAt: null };

// ---- words

const number = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function count(n, one) {
  return `${number.format(n)} ${one}${n === 1 ? "" : "s"}`;
}

function rate(n) {
  return `${n > 0 && n < 10 ? n.toFixed(1) : number.format(Math.round(n))}/s`;
}

// A rate whose name says its unit.
function plain(n) {
  return n > 0 && n < 10 ? n.toFixed(1) : short.format(n);
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`;
}

function span(seconds) {
  const [d, h, m, s] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  if (d > 0) return `${d}d ${h}h`;
  if (h > 0) return `${h}h ${m}m`;
  if (m > 0) return `${m}m ${s}s`;
  return `${s}s`;
}

function clock(ms) {
  const text = new Date(ms).toISOString();
  const isToday = text.slice(0, 10) === new Date(known.look.now_ms).toISOString().slice(0, 10);
  return isToday ? text.slice(11, 19) : `${text.slice(5, 10)} ${text.slice(11, 19)}`;
}

// ---- nodes

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat(2).filter((child) => child !== null));
  return node;
}

function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// Makes an old tree like a new one where they differ: what is selected, focused, scrolled
// or unfolded stays so.
function become(old, next) {
  for (const { name, value } of [...next.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    const isUsers = name === "open" && old.tagName === "DETAILS";
    if (!next.hasAttribute(name) && !isUsers) old.removeAttribute(name);
  }
  const nexts = [...next.childNodes];
  nexts.forEach((child, at) => {
    const now = old.childNodes[at];
    if (now === undefined) {
      old.append(child);
    } else if (now.nodeType !== child.nodeType || now.nodeName !== child.nodeName) {
      now.replaceWith(child);
    } else if (child.nodeType === Node.TEXT_NODE) {
      if (now.data !== child.data) now.data = child.data;
    } else {
      become(now, child);
    }
  });
  while (old.childNodes.length > nexts.length) old.lastChild.remove();
}

function show(id, ...children) {
  const old = document.getElementById(id);
  const next = old.cloneNode(false);
  next.append(...children.flat(2).filter((child) => child !== null));
  become(old, next);
}

// ---- pictures

// The time that pictures show, on the service's own clock.
function timeRange() {
  const to = known.look.up_ms;
  return { from: Math.max(0, to - RINGS[known.ring].windowMs), to: Math.max(to, 1) };
}

function place(upMs, width) {
  const { from, to } = timeRange();
  return Math.min(width, Math.max(0, ((upMs - from) / (to - from)) * width));
}

function bands(track, width, height, kind) {
  const { from, to } = timeRange();
  const seen = (track?.marks ?? []).filter((mark) => (mark.to_up_ms ?? to) >= from);
  return seen.map((mark) => {
    const left = place(mark.from_up_ms, width);
    const right = place(mark.to_up_ms ?? to, width);
    // Seen, however short it was.
    const wide = Math.max(right - left, width / 150);
    const x = Math.min(left, width - wide);
    return svg("rect", { class: kind, x: x.toFixed(1), y: 0, width: wide.toFixed(1), height });
  });
}

// A curve of [up_ms, value] with what is highest and what is now.
function spark(title, values, track, said) {
  const { from } = timeRange();
  const seen = values.filter(([at]) => at >= from);
  const [width, height] = [300, 44];
  const highest = Math.max(...seen.map(([, value]) => value), 0);
  const y = (value) => (height - 2 - (highest > 0 ? (value / highest) * (height - 6) : 0)).toFixed(1);
  const line = seen.map(([at, value]) => `${place(at, width).toFixed(1)},${y(value)}`);
  const now = seen.length > 0 ? seen[seen.length - 1][1] : 0;
  const ends = seen.length > 0 ? [place(seen[0][0], width), place(seen[seen.length - 1][0], width)] : [0, 0];
  const area = [`${ends[0].toFixed(1)},${height}`, ...line, `${ends[1].toFixed(1)},${height}`];
  const words = `${title}: now ${said(now)}, highest ${said(highest)} in ${RINGS[known.ring].said}`;
  return h("figure", {},
    svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": words },
      bands(track, width, height, "band"),
      svg("polygon", { class: "area", points: area.join(" ") }),
      svg("polyline", { class: "curve", points: line.join(" ") })),
    h("figcaption", {}, h("span", {}, title), h("span", {}, `max ${said(highest)}`)));
}

// Per second, from the totals of two points.
function perSecond(points, total) {
  const rates = [];
  for (let at = 1; at < points.length; at += 1) {
    const [a, b] = [points[at - 1], points[at]];
    const [from, to] = [total(a), total(b)];
    if (from !== undefined && to !== undefined && b.up_ms > a.up_ms) {
      const value = (Math.max(0, to - from) * 1000) / (b.up_ms - a.up_ms);
      if (rates.length === 0) rates.push([a.up_ms, value]);
      rates.push([b.up_ms, value]);
    }
  }
  return rates;
}

function levels(points, level) {
  return points.map((point) => [point.up_ms, level(point)]).filter(([, value]) => value !== undefined);
}

// ---- parts

const SIGNS = { well: "✓", care: "!", ill: "✕" };

function sign(state, words) {
  return h("span", { class: `state ${state}` }, `${SIGNS[state]} ${words}`);
}

function isWell(part) {
  return part.trouble === null && part.connected !== false;
}

function ago(ms) {
  return span(Math.max(0, (known.look.now_ms - ms) / 1000));
}

function condition(part) {
  if (part.trouble !== null) return sign("ill", `in trouble for ${ago(part.trouble.since_ms)}`);
  if (part.connected === false) return sign("care", "not connected");
  return sign("well", part.connected ? "connected" : "well");
}

function lines(pairs) {
  const rows = pairs.filter((pair) => pair !== null);
  return h("dl", { class: "lines" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function card(state, ...children) {
  return h("div", { class: state === "well" ? "card" : `card ${state}-card` }, children);
}

function why(part) {
  return part.trouble === null ? null : h("p", { class: "why ill" }, part.trouble.text);
}

function lastDone(part) {
  return ["last done", part.done_at_ms === null ? "nothing yet" : `${ago(part.done_at_ms)} ago`];
}

function emptyIn(way) {
  if (way.rate === null) return "–";
  const seconds = way.rate.empty_in_seconds;
  return seconds === null ? "not shrinking" : span(seconds);
}

// ---- the picture

const STATES = {
  serving: ["well", "serving"],
  not_serving: ["ill", "NOT SERVING"],
  draining: ["care", "draining"],
  stopping: ["care", "stopping"],
};

function head(status) {
  const [state, words] = STATES[status.state] ?? ["ill", status.state];
  return [
    h("span", { class: "name" }, "Holdfast"),
    h("span", {}, status.host ?? "this host"),
    h("span", { id: "state", "aria-live": "polite" }, sign(state, words)),
    h("span", { class: "soft" }, `${status.version ?? ""}, up ${span(status.up_seconds ?? 0)}`),
  ];
}

// The way out that has most to do stands for all in the large figures.
function worst(ways) {
  return ways.reduce((most, way) => (most === null || way.pending_events > most.pending_events ? way : most), null);
}

function fact(name, value, note) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value, note === "" ? null : h("small", {}, note)));
}

function facts(status) {
  const way = worst(status.ledger.ways);
  const rates = status.rates;
  const acks = status.acks?.latency ?? null;
  const full = rates === null ? "–" : rates.full_in_seconds === null ? "not growing" : span(rates.full_in_seconds);
  const name = way === null || status.ledger.ways.length < 2 ? "" : way.way;
  return h("dl", { class: "facts", id: "facts" },
    fact("Backlog", number.format(way?.pending_events ?? 0), `events${name === "" ? "" : ` to ${name}`}, ${count(way?.pending_requests ?? 0, "request")}`),
    fact("Oldest waits for", way === null || way.oldest_pending_age_seconds === null ? "–" : span(way.oldest_pending_age_seconds), ""),
    fact("Empty in", way === null ? "–" : emptyIn(way), ""),
    fact("Disk full in", full, `${size(status.disk.used_bytes)} used`),
    fact("Accepted", rates === null ? "–" : rate(rates.accepted_requests_per_second), "requests, over a minute"),
    fact("Acknowledged", acks === null ? "–" : `${number.format(acks.p99_ms)} ms`, "99 of 100 no later, over a minute"),
    fact("Set aside", number.format(waiting(status)), "wait for an operator"));
}

function waiting(status) {
  return Object.values(status.dead_letters ?? {}).reduce((sum, n) => sum + n, 0);
}

function stage(name, ...cards) {
  return h("li", {}, h("div", { class: "stage" }, name), cards);
}

function door(status, points, tracks) {
  const [state, words] = STATES[status.state] ?? ["ill", status.state];
  return stage("door", card(state,
    h("h3", {}, sign(state, words)),
    lines([
      ["in work", number.format(status.in_work ?? 0)],
      ["accepted in all", number.format(Object.values(status.ledger.accepted ?? {}).reduce((sum, n) => sum + n, 0))],
    ]),
    spark("events/s", perSecond(points, (point) => point.accepted), tracks.door, plain)));
}

function log(status, points) {
  const disk = status.disk;
  const lost = status.losses ?? [];
  const state = lost.length > 0 ? "ill" : "well";
  return stage("log", card(state,
    h("h3", {}, lost.length > 0 ? sign("ill", `${count(lost.length, "loss")}`.replace(/losss$/, "losses")) : sign("well", "all readable")),
    lines([
      ["on disk", disk.max_bytes === null ? size(disk.used_bytes) : `${size(disk.used_bytes)} of ${size(disk.max_bytes)}`],
      disk.free_bytes === null ? null : ["free", size(disk.free_bytes)],
      ["generations", number.format(status.generations)],
    ]),
    lost.map((loss) => h("p", { class: "why ill" }, loss.end > loss.first
      ? `sequences ${loss.first} to ${loss.end - 1} in generation ${loss.generation} are lost`
      : `what generation ${loss.generation} held is lost, and nobody knows how much that was`)),
    spark("on disk", levels(points, (point) => point.used_bytes), undefined, size)));
}

function wayOut(way, status, points, tracks) {
  const part = status.parts.find((other) => other.kind === "way_out" && other.name === way.way);
  const isUnused = part === undefined;
  const state = isUnused || !isWell(part) ? (isUnused || part.trouble === null ? "care" : "ill") : "well";
  const adds = way.adds_up === false ? sign("ill", "DOES NOT ADD UP") : null;
  return card(state,
    h("h3", {}, `${way.way} `, isUnused ? sign("care", "not configured any more") : condition(part)),
    isUnused ? null : why(part),
    way.pace?.slowed ? h("p", { class: "why care" }, `slowed: ${way.pace.slowed}`) : null,
    adds === null ? null : h("p", { class: "why" }, adds),
    lines([
      ["waiting", count(way.pending_events, "event")],
      ["oldest", way.oldest_pending_age_seconds === null ? "–" : span(way.oldest_pending_age_seconds)],
      ["empty in", emptyIn(way)],
      ["requests", way.rate === null ? "–" : rate(way.rate.requests_per_second)],
      way.ahead_requests > 0 ? ["fresh, gone ahead", number.format(way.ahead_requests)] : null,
      way.pace?.confirm_latency_ms == null ? null : ["confirms take", `${way.pace.confirm_latency_ms} ms`],
    ]),
    spark("waiting", levels(points, (point) => point.ways[way.way]?.pending), tracks[way.way], (n) => short.format(n)),
    spark("delivered/s", perSecond(points, (point) => point.ways[way.way]?.delivered), tracks[way.way], plain));
}

function consumers(status) {
  const all = status.parts.filter((part) => part.kind === "consumer");
  if (all.length === 0) return null;
  const ill = all.filter((part) => !isWell(part));
  // One outage is one line, although each says it of its own queue.
  const groups = new Map();
  for (const part of ill) {
    const text = (part.trouble?.text ?? "not connected").replaceAll(part.name, "…");
    groups.set(text, [...(groups.get(text) ?? []), part]);
  }
  const most = [...groups].sort(([, a], [, b]) => b.length - a.length);
  const state = ill.length === 0 ? "well" : ill.some((part) => part.trouble !== null) ? "ill" : "care";
  return stage("consumers", card(state,
    h("h3", {}, sign(state, `${all.length - ill.length} of ${all.length} at work`)),
    // In one node, whether there are any: what follows keeps its place, and stays unfolded.
    h("div", {},
      most.slice(0, REASONS_MAX).map(([text, parts]) => h("p", { class: "why ill" }, `${parts.length === 1 ? parts[0].name : count(parts.length, "consumer")}: ${text}`)),
      most.length > REASONS_MAX ? h("p", { class: "why ill" }, `and ${count(most.length - REASONS_MAX, "more reason")}, below`) : null),
    h("details", {}, h("summary", {}, "All consumers"),
      h("ul", { class: "plain" }, all.map((part) => h("li", {}, `${part.name} `, condition(part), why(part)))))));
}

function sinks(status) {
  const all = status.parts.filter((part) => part.kind === "sink");
  if (all.length === 0) return null;
  return stage("sinks", all.map((part) => card(isWell(part) ? "well" : "ill",
    h("h3", {}, `${part.name} `, condition(part)), why(part), lines([lastDone(part)]))));
}

function deadLetters(status) {
  const n = waiting(status);
  const isKnown = status.dead_letters !== null;
  const ways = Object.entries(status.dead_letters ?? {}).filter(([, letters]) => letters > 0);
  const set = status.ledger.ways.map((way) => [way.way, sum(way, "dead_lettered")]).filter(([, letters]) => letters > 0);
  const state = n > 0 || !isKnown ? "care" : "well";
  return stage("dead letters", card(state,
    h("h3", {}, !isKnown ? sign("care", "not counted now") : n > 0 ? sign("care", `${number.format(n)} waiting`) : sign("well", "none waiting")),
    lines([
      ...ways.map(([way, letters]) => [`wait, by ${way}`, number.format(letters)]),
      ...set.map(([way, letters]) => [`ever set aside, by ${way}`, number.format(letters)]),
    ]),
    n > 0 ? h("p", { class: "soft" }, h("code", {}, "holdfast dlq ls"), " shows them") : null));
}

function sum(way, key) {
  return Object.values(way.events).reduce((total, account) => total + (account[key] ?? 0), 0);
}

function flow(status, points, tracks) {
  return h("ol", { class: "flow", id: "flow" },
    door(status, points, tracks),
    log(status, points),
    stage("ways out", status.ledger.ways.map((way) => wayOut(way, status, points, tracks))),
    consumers(status),
    sinks(status),
    deadLetters(status));
}

function outages(tracks) {
  const { from, to } = timeRange();
  const order = (name) => (name === "door" ? 0 : name === "consumers" ? 2 : 1);
  const names = Object.keys(tracks).sort((a, b) => order(a) - order(b) || (a < b ? -1 : 1));
  const strips = names.map((name) => {
    const marks = tracks[name].marks.filter((mark) => (mark.to_up_ms ?? to) >= from);
    const words = `${name}: ${count(marks.length, "outage")} in ${RINGS[known.ring].said}`;
    return [h("div", {}, name), svg("svg", { class: "strip", viewBox: "0 0 600 10", preserveAspectRatio: "none", role: "img", "aria-label": words },
      svg("rect", { class: "base", x: 0, y: 4, width: 600, height: 2 }), bands(tracks[name], 600, 10, "mark"))];
  });
  const all = names.flatMap((name) => tracks[name].marks.map((mark) => ({ name, ...mark })));
  all.sort((a, b) => b.from_up_ms - a.from_up_ms);
  const at = (upMs) => clock(known.look.now_ms - (known.look.up_ms - upMs));
  const items = all.slice(0, 12).map((mark) => {
    const lasts = mark.to_up_ms === null;
    const time = span(((mark.to_up_ms ?? to) - mark.from_up_ms) / 1000);
    return h("li", {}, `${at(mark.from_up_ms)} `, lasts ? sign("ill", `${mark.name}, for ${time} now`) : h("strong", {}, `${mark.name}, ${time}`), ` ${mark.text}`);
  });
  return h("section", { id: "outages" }, h("h2", {}, "Outages since the start"),
    h("div", { class: "card" },
      h("div", { class: "tracks" }, strips, h("div", { class: "ends" }, h("span", {}, `${span((to - from) / 1000)} ago`), h("span", {}, "now"))),
      h("ul", { class: "plain" }, items.length > 0 ? items : h("li", { class: "soft" }, "none"))));
}

const COLUMNS = [
  ["accepted", "accepted"], ["delivered", "delivered"], ["pending", "waiting"],
  ["dead_lettered", "set aside"], ["purged", "purged"], ["lost", "lost"],
];

function adds(account) {
  const rest = COLUMNS.slice(1).reduce((total, [key]) => total + account[key], 0);
  return account.accepted === null || account.accepted === rest;
}

function table(title, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, title), COLUMNS.map(([, name]) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map(([name, account, isGood]) => h("tr", {},
        h("td", {}, isGood ? name : sign("ill", name)),
        COLUMNS.map(([key]) => h("td", {}, account[key] === null ? "–" : number.format(account[key]))))))));
}

function ledger(status) {
  const totals = status.ledger.ways.map((way) => {
    const account = Object.fromEntries(COLUMNS.map(([key]) => [key, sum(way, key)]));
    return [way.way, account, way.adds_up !== false];
  });
  const isGood = totals.every(([, , good]) => good);
  return h("section", { id: "ledger" },
    h("h2", {}, "Ledger ", totals.length === 0 ? null : isGood ? sign("well", "every event adds up") : sign("ill", "DOES NOT ADD UP")),
    h("div", { class: "card" }, totals.length === 0 ? h("p", { class: "soft" }, "No way out has been used yet.") : table("way out", totals),
      status.ledger.ways.map((way) => h("details", {}, h("summary", {}, `By event type: ${way.way}`),
        table("event type", Object.entries(way.events).map(([name, account]) => [name, account, adds(account)]))))));
}

// ---- one look

// The points of the pictures; those of a minute end with the present.
function drawn() {
  const points = known.points[known.ring];
  const { status, up_ms } = known.look;
  if (known.ring !== "coarse" || points.length === 0 || points[points.length - 1].up_ms >= up_ms) return points;
  const accepted = Object.values(status.ledger.accepted ?? {}).reduce((all, n) => all + n, 0);
  const ways = Object.fromEntries(status.ledger.ways.map((way) => [way.way, { delivered: sum(way, "delivered"), pending: way.pending_events }]));
  return [...points, { up_ms, accepted, used_bytes: status.disk.used_bytes, ways }];
}

function render() {
  const { status, past } = known.look;
  const points = drawn();
  show("head", head(status));
  const reasons = status.reasons.length === 0 ? null : h("ul", { class: "reasons" }, status.reasons.map((reason) => h("li", {}, reason)));
  show("main", reasons === null ? h("ul", { hidden: "" }) : reasons, facts(status), flow(status, points, past.tracks), outages(past.tracks), ledger(status));
  const [, words] = STATES[status.state] ?? ["", status.state];
  const backlog = worst(status.ledger.ways)?.pending_events ?? 0;
  const isWellAll = status.state === "serving" && status.parts.every(isWell);
  document.title = `${isWellAll ? SIGNS.well : SIGNS.ill} ${status.host ?? "Holdfast"}: ${words}, ${short.format(backlog)} waiting`;
}

function keep(look, ring) {
  if (known.look?.started_at_ms !== look.started_at_ms) {
    known.points = { fine: [], coarse: [] };
  }
  const points = known.points[ring];
  const newest = points.length > 0 ? points[points.length - 1].up_ms : -1;
  points.push(...look.past.points.filter((point) => point.up_ms > newest));
  points.splice(0, Math.max(0, points.length - RINGS[ring].max));
  known.look = look;
}

async function ask() {
  const ring = known.ring;
  const points = known.points[ring];
  const after = points.length > 0 ? `&after=${points[points.length - 1].up_ms}` : "";
  const answer = await fetch(`look?coarse=${ring === "coarse"}${after}`, { signal: AbortSignal.timeout(ANSWER_WAIT_MS), cache: "no-store" });
  if (!answer.ok) throw new Error(`the service answers ${answer.status}`);
  const look = await answer.json();
  const isOther = known.look !== null && known.look.started_at_ms !== look.started_at_ms;
  keep(look, ring);
  // Another process: what was asked for was a part of its past only.
  if (isOther && after !== "") known.points[ring] = [];
  known.answeredAt = Date.now();
}

function banner(text) {
  const node = document.getElementById("banner");
  if (node.textContent !== text) node.textContent = text;
  node.hidden = text === "";
  document.body.classList.toggle("stale", text !== "");
}

async function look() {
  try {
    await ask();
    render();
    banner("");
  } catch (error) {
    const since = known.answeredAt === null ? "" : ` What is shown is from ${span((Date.now() - known.answeredAt) / 1000)} ago.`;
    banner(`No answer from the service (${error.message}).${since}`);
    show("state", sign("ill", "no answer"));
    document.title = `${SIGNS.ill} ${known.look?.status.host ?? "Holdfast"}: no answer`;
  }
}

let timer = null;

async function go() {
  clearTimeout(timer);
  timer = null;
  if (document.visibilityState === "visible") await look();
  // Another call may have set one meanwhile.
  if (timer === null) timer = setTimeout(go, LOOK_EVERY_MS);
}

for (const ring of Object.keys(RINGS)) {
  document.getElementById(ring).addEventListener("click", () => {
    known.ring = ring;
    for (const other of Object.keys(RINGS)) {
      document.getElementById(other).setAttribute("aria-pressed", String(other === ring));
    }
    go();
  });
}
document.addEventListener("visibilitychange", go);
go();
