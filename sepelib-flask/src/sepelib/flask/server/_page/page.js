"use strict";
// Asks for ?fmt=json again and again, keeps what it hears, and draws it. Whatever comes from the
// server gets into the page as text, never as markup: labels hold what strangers wrote.

(() => {
  const MOST_POINTS = 240;    // of one series
  const MOST_KEPT = 4000;     // series with a history
  const MOST_SHOWN = 250;     // series drawn at once
  const PATIENCE = 15000;     // ms for one answer

  const byId = (id) => document.getElementById(id);
  const [main, state, filter, interval, pause, count] =
    ["metrics", "state", "filter", "interval", "pause", "count"].map(byId);

  const histories = new Map();  // key of a series -> {times, first, second, count, at, seen}
  const rows = new Map();       // key of a series -> its elements
  const opened = new Set();     // keys of series with a large chart
  let cards = new Map();        // name of a metric -> its elements
  let latest = null;            // the answer in force
  let round = 0;
  let lastAnswer = 0;           // when it came
  let problem = null;
  let timer = 0;

  // -- Numbers for people.

  const scaled = (value, units, step) => {
    let i = 0;
    while (Math.abs(value) >= step && i < units.length - 1) { value /= step; i += 1; }
    return `${digits(value)}\u202f${units[i]}`;
  };

  const digits = (value) => {
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en");
    const size = Math.abs(value);
    if (size >= 1e6) return scaled(value / 1e6, ["M", "G", "T", "P", "E"], 1000);
    if (size !== 0 && size < 1e-3) return value.toExponential(2);
    return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 5 : 3 });
  };

  const duration = (seconds) => {
    const size = Math.abs(seconds);
    if (size === 0) return "0\u202fs";
    if (size < 1e-3) return `${digits(seconds * 1e6)}\u202fµs`;
    if (size < 1) return `${digits(seconds * 1e3)}\u202fms`;
    if (size < 120) return `${digits(seconds)}\u202fs`;
    if (size < 7200) return `${digits(seconds / 60)}\u202fmin`;
    if (size < 172800) return `${digits(seconds / 3600)}\u202fh`;
    return `${digits(seconds / 86400)}\u202fd`;
  };

  const isMoment = (name) => /_(time|timestamp)_seconds$/.test(name);

  const shown = (value, metric) => {
    if (typeof value !== "number" || !Number.isFinite(value)) return value == null ? "–" : String(value);
    if (metric.kind === "gauge" && isMoment(metric.name) && value > 1e8) {
      return new Date(value * 1000).toISOString().slice(0, 19).replace("T", " ");
    }
    const unit = metric.unit || (/_seconds$/.test(metric.name) ? "seconds" : /_bytes$/.test(metric.name) ? "bytes" : "");
    if (unit === "seconds") return duration(value);
    if (unit === "bytes") return scaled(value, ["B", "KiB", "MiB", "GiB", "TiB"], 1024);
    return digits(value);
  };

  const perSecond = (value, metric) => {
    if (typeof value !== "number" || !Number.isFinite(value)) return "–";
    const unit = metric.unit === "bytes" || /_bytes$/.test(metric.name);
    return `${unit ? scaled(value, ["B", "KiB", "MiB", "GiB"], 1024) : digits(value)}/s`;
  };

  // -- History.

  // JSON has no NaN and no infinities: some writers send them as texts.
  const number = (value) => (typeof value === "number" ? value : value == null ? NaN : Number(value));

  const keyOf = (metric, series) => JSON.stringify([metric.name, series.labels]);

  const quantile = (series, q) => {
    const quantiles = series.window && series.window.quantiles;
    return quantiles ? number(quantiles[q]) : NaN;
  };

  const remember = (metric, series, now) => {
    const key = keyOf(metric, series);
    let history = histories.get(key);
    if (!history) {
      if (histories.size >= MOST_KEPT) return;
      history = { times: [], first: [], second: [], total: NaN, at: NaN, rate: NaN, seen: 0 };
      histories.set(key, history);
    }
    const total = metric.kind === "gauge" ? NaN : number(metric.kind === "counter" ? series.value : series.count);
    // A counter that has become smaller began anew: the server was restarted.
    const seconds = (now - history.at) / 1000;
    history.rate = seconds > 0 && total >= history.total ? (total - history.total) / seconds : NaN;
    history.total = total;
    history.at = now;
    history.seen = round;
    let first = NaN;
    let second = NaN;
    if (metric.kind === "gauge") first = number(series.value);
    else if (metric.kind === "histogram") { first = quantile(series, "0.5"); second = quantile(series, "0.99"); }
    else first = history.rate;
    history.times.push(now);
    history.first.push(first);
    history.second.push(second);
    if (history.times.length > MOST_POINTS) {
      history.times.shift();
      history.first.shift();
      history.second.shift();
    }
  };

  const take = (answer) => {
    if (!answer || !Array.isArray(answer.metrics)) throw new Error("not a list of metrics");
    const now = performance.now();
    round += 1;
    latest = answer.metrics.filter((metric) => Array.isArray(metric.series));
    for (const metric of latest) for (const series of metric.series) remember(metric, series, now);
    for (const [key, history] of histories) if (history.seen !== round) histories.delete(key);
  };

  // -- Elements.

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const svgMake = (tag, className) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    if (className) element.setAttribute("class", className);
    return element;
  };

  const cardOf = (metric) => {
    let card = cards.get(metric.name);
    if (!card) {
      const root = make("section", metric.labels.length ? "metric" : "metric single");
      const about = make("div", "about");
      const title = make("h2", "");
      // A long name breaks behind an underscore.
      for (const part of metric.name.split(/(?<=_)/)) title.append(part, document.createElement("wbr"));
      about.append(title, make("span", "kind", [metric.kind, metric.unit].filter(Boolean).join(", ")));
      if (metric.help) about.append(make("p", "help", metric.help));
      root.append(about);
      card = { root, about };
      cards.set(metric.name, card);
    }
    return card;
  };

  const rowOf = (metric, series, key) => {
    let row = rows.get(key);
    if (row) return row;
    const root = make("div", "series");
    const labels = make("div", "labels");
    series.labels.forEach((value, i) => {
      const chip = make("span");
      chip.append(make("b", "", `${metric.labels[i]}=`), String(value));
      labels.append(chip);
    });
    const values = make("dl", "values");
    const chart = make("button", "chart");
    chart.type = "button";
    const svg = svgMake("svg");
    svg.setAttribute("viewBox", "0 0 1000 100");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    const area = svgMake("path", "area");
    const second = svgMake("path", "second");
    const first = svgMake("path");
    svg.append(area, second, first);
    chart.append(svg);
    const scale = make("div", "scale");
    chart.addEventListener("click", () => {
      if (!opened.delete(key)) opened.add(key);
      draw();
    });
    root.append(labels, values, chart, scale);
    row = { root, values, chart, svg, area, first, second, scale };
    rows.set(key, row);
    return row;
  };

  const valuesOf = (metric, series, history) => {
    const rate = history ? history.rate : NaN;
    switch (metric.kind) {
      case "counter":
        return [["total", shown(number(series.value), metric), ""], ["rate", perSecond(rate, metric), "main"]];
      case "meter": {
        const rates = series.rates || {};
        return [["total", shown(number(series.count), metric), ""], ["now", perSecond(rate, metric), "main"]]
          .concat(Object.keys(rates).map((name) => [name, perSecond(number(rates[name]), metric), ""]));
      }
      case "histogram": {
        const seen = series.window || {};
        return [
          ["rate", perSecond(rate, {}), ""],
          ["p50", shown(quantile(series, "0.5"), metric), "main"],
          ["p99", shown(quantile(series, "0.99"), metric), "second"],
          ["mean", shown(number(seen.mean), metric), ""],
          ["max", shown(number(seen.max), metric), ""],
          ["total", digits(number(series.count)), ""],
        ];
      }
      default:
        return [["value", shown(number(series.value), metric), "main"]];
    }
  };

  const fillValues = (row, values) => {
    // The elements stay, so that a reader's selection and place do too.
    while (row.values.children.length < values.length) {
      const cell = make("div");
      cell.append(make("dt"), make("dd"));
      row.values.append(cell);
    }
    while (row.values.children.length > values.length) row.values.lastChild.remove();
    values.forEach(([name, value, className], i) => {
      const [dt, dd] = row.values.children[i].children;
      dt.textContent = name;
      dd.textContent = value;
      dd.className = className;
    });
  };

  // -- Charts.

  const line = (times, values, low, high, close) => {
    const start = times[0];
    const span = Math.max(times[times.length - 1] - start, 1);
    let path = "";
    let pen = false;
    let x0 = 0;
    let x = 0;
    values.forEach((value, i) => {
      if (!Number.isFinite(value)) {
        if (pen && close) path += `L${x} 100L${x0} 100Z`;
        pen = false;
        return;
      }
      x = Math.round(((times[i] - start) / span) * 1000);
      const y = (96 - ((value - low) / (high - low)) * 92).toFixed(1);
      if (!pen) x0 = x;
      path += `${pen ? "L" : "M"}${x} ${y}`;
      pen = true;
    });
    if (pen && close) path += `L${x} 100L${x0} 100Z`;
    return path;
  };

  const drawChart = (row, metric, history, isOpen) => {
    row.root.classList.toggle("open", isOpen);
    row.chart.setAttribute("aria-expanded", String(isOpen));
    const values = history ? history.first.concat(history.second).filter(Number.isFinite) : [];
    const least = Math.min(...values);
    const most = Math.max(...values);
    const isRate = metric.kind === "counter" || metric.kind === "meter";
    const format = (value) => (isRate ? perSecond(value, metric) : shown(value, metric));
    const words = values.length ? `${format(least)} to ${format(most)}` : "nothing to draw yet";
    row.svg.setAttribute("aria-label", `${isRate ? "rate" : "history"}: ${words}`);
    row.scale.hidden = !isOpen;
    if (!values.length) {
      for (const path of [row.area, row.first, row.second]) path.removeAttribute("d");
      row.scale.replaceChildren(words);
      return;
    }
    // From 0 on, unless that would hide how it moves: a memory of 4.0 to 4.1 GiB.
    let low = least >= 0 && (isRate || most - least > most * 0.2) ? 0 : least;
    let high = most;
    if (!(high > low)) { low -= Math.abs(low) || 1; high += Math.abs(high) || 1; }
    row.area.setAttribute("d", line(history.times, history.first, low, high, true));
    row.first.setAttribute("d", line(history.times, history.first, low, high, false));
    row.second.setAttribute("d", line(history.times, history.second, low, high, false));
    const ago = (history.times[history.times.length - 1] - history.times[0]) / 1000;
    row.scale.replaceChildren(make("span", "", `${duration(Math.round(ago))} ago`), make("span", "", words), make("span", "", "now"));
  };

  // -- The page.

  const words = () => filter.value.toLowerCase().split(/\s+/).filter(Boolean);

  const matches = (metric, series, wanted) => {
    if (!wanted.length) return true;
    const pairs = series.labels.map((value, i) => `${metric.labels[i]}=${value}`);
    const text = [metric.name, metric.kind, ...pairs].join(" ").toLowerCase();
    return wanted.every((word) => text.includes(word));
  };

  const draw = () => {
    if (!latest) return;
    const wanted = words();
    let all = 0;
    let found = 0;
    let drawn = 0;
    const inUse = new Set();
    const sections = [];
    for (const metric of latest) {
      const chosen = metric.series.filter((series) => matches(metric, series, wanted));
      all += metric.series.length;
      found += chosen.length;
      if (!chosen.length || drawn >= MOST_SHOWN) continue;
      const card = cardOf(metric);
      const elements = [card.about];
      for (const series of chosen.slice(0, MOST_SHOWN - drawn)) {
        const key = keyOf(metric, series);
        const row = rowOf(metric, series, key);
        const history = histories.get(key);
        fillValues(row, valuesOf(metric, series, history));
        drawChart(row, metric, history, opened.has(key));
        elements.push(row.root);
        inUse.add(key);
        drawn += 1;
      }
      adopt(card.root, elements);
      sections.push(card.root);
    }
    for (const key of rows.keys()) if (!inUse.has(key)) rows.delete(key);
    if (found > drawn) {
      sections.push(make("p", "note", `${(found - drawn).toLocaleString("en")} more series: filter for them.`));
    } else if (!found) {
      sections.push(make("p", "note", all ? "No series has all of these words." : "There are no metrics yet."));
    }
    adopt(main, sections);
    count.textContent = wanted.length ? `${found.toLocaleString("en")} of ${all.toLocaleString("en")} series` : `${all.toLocaleString("en")} series`;
  };

  // Makes *elements* the children of *parent*, and moves none that is in its place: it would lose
  // the focus.
  const adopt = (parent, elements) => {
    elements.forEach((element, i) => {
      if (parent.childNodes[i] !== element) parent.insertBefore(element, parent.childNodes[i] || null);
    });
    while (parent.childNodes.length > elements.length) parent.lastChild.remove();
  };

  const say = () => {
    const isPaused = pause.getAttribute("aria-pressed") === "true";
    const seconds = Math.round((performance.now() - lastAnswer) / 1000);
    let kind = "live";
    let text = "live";
    if (isPaused) [kind, text] = ["paused", "paused"];
    else if (problem) [kind, text] = ["gone", lastAnswer ? `${problem}; these values are ${duration(seconds)} old` : problem];
    else if (!latest) [kind, text] = ["waiting", "connecting"];
    if (state.textContent !== text) state.textContent = text;
    state.dataset.state = kind;
    document.body.classList.toggle("gone", kind === "gone");
    document.title = kind === "gone" ? "✕ Metrics" : "Metrics";
  };

  const ask = async () => {
    clearTimeout(timer);
    const patience = new AbortController();
    const limit = setTimeout(() => patience.abort(), PATIENCE);
    try {
      const answer = await fetch("?fmt=json", { signal: patience.signal, cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(`the server says ${answer.status}`);
      take(await answer.json());
      lastAnswer = performance.now();
      problem = null;
    } catch (error) {
      problem = error instanceof TypeError || error.name === "AbortError" ? "the server is gone" : error.message;
    } finally {
      clearTimeout(limit);
    }
    draw();
    say();
    next();
  };

  const next = () => {
    clearTimeout(timer);
    // A hidden page asks for nothing; it asks at once when it is looked at again.
    if (pause.getAttribute("aria-pressed") !== "true" && !document.hidden) {
      timer = setTimeout(ask, Number(interval.value));
    }
  };

  byId("host").textContent = location.host;
  filter.value = decodeURIComponent(location.hash.slice(1));
  filter.addEventListener("input", () => {
    history.replaceState(null, "", filter.value ? `#${encodeURIComponent(filter.value)}` : location.pathname + location.search);
    draw();
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  interval.addEventListener("change", next);
  pause.addEventListener("click", () => {
    const isPaused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(isPaused));
    pause.textContent = isPaused ? "Go on" : "Pause";
    if (isPaused) clearTimeout(timer); else ask();
    say();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      filter.focus();
    } else if (event.key === "Escape" && event.target === filter && filter.value) {
      filter.value = "";
      filter.dispatchEvent(new Event("input"));
    }
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && pause.getAttribute("aria-pressed") !== "true") ask(); });
  setInterval(say, 1000);
  ask();
})();
