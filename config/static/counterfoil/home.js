"use strict";

// Draws the home's charts from the numbers in the page, and draws them anew when the page is sent newer ones: the same
// chart with other numbers, so that nothing flickers. A bar leads to the list of its rows.
const home = document.getElementById("home");
const drawn = new Map();

const lines = () => JSON.parse(document.getElementById("home-drawn").dataset.lines);
const variable = (name) => getComputedStyle(home).getPropertyValue(name).trim();
const colour = (name) => variable(`--home-${name}`);

function dataset(line) {
  const shown = colour(line.colour);
  const look = line.type === "bar"
    ? { backgroundColor: shown, maxBarThickness: 24, order: 1 }
    : { borderColor: shown, borderWidth: 2, pointRadius: 0, pointHitRadius: 8, tension: 0.25, order: 0, spanGaps: true };
  const filled = line.fill ? { fill: "origin", backgroundColor: colour(`${line.colour}-area`) } : { fill: false };
  return {
    ...(line.type === "line" ? filled : {}),
    ...look,
    type: line.type,
    label: line.label,
    data: line.data.map((value) => (value === null ? null : Number(value) * (line.down ? -1 : 1))),
    stack: line.stack || line.label,
  };
}

const said = (value, unit) => Math.abs(value).toLocaleString("en", { maximumFractionDigits: 4 }) + unit;

function options(name, unit) {
  const grid = variable("--home-grid");
  const text = variable("--home-text");
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    interaction: { mode: "index", intersect: false },
    onClick: (event, _, chart) => follow(name, chart, event),
    scales: {
      x: { stacked: true, grid: { display: false }, border: { color: grid }, ticks: { color: text, maxRotation: 0, autoSkipPadding: 24 } },
      y: {
        stacked: true,
        beginAtZero: true,
        grid: { color: grid },
        border: { display: false },
        ticks: { color: text, maxTicksLimit: 5, precision: unit ? undefined : 0, callback: (value) => said(value, unit) },
      },
    },
    plugins: { legend: { display: false }, tooltip: { callbacks: { label: (item) => ` ${said(item.parsed.y, unit)} ${item.dataset.label}` } } },
  };
}

// The rows behind what was clicked: of the series under the pointer, or of the first that has any there.
function follow(name, chart, event) {
  const [place] = chart.getElementsAtEventForMode(event, "index", { intersect: false }, false);
  if (!place) return;
  const shown = lines()[name];
  const exact = chart.getElementsAtEventForMode(event, "nearest", { intersect: true }, false)[0];
  const line = shown.lines[exact ? exact.datasetIndex : 0];
  if (!line.list) return;
  const [from, to] = [shown.bounds[place.index], shown.bounds[place.index + 1]];
  const address = new URL(line.list, location.href);
  address.searchParams.set(`${line.span}_from`, from);
  address.searchParams.set(`${line.span}_to`, to);
  location.assign(address);
}

function draw() {
  for (const [name, chart] of Object.entries(lines())) {
    const canvas = home.querySelector(`[data-chart="${name}"]`);
    if (!canvas) continue;
    const data = { labels: chart.labels, datasets: chart.lines.map(dataset) };
    const known = drawn.get(name);
    if (known) {
      known.data = data;
      known.options = options(name, chart.unit || "");
      known.update("none");
    } else {
      drawn.set(name, new Chart(canvas, { data, options: options(name, chart.unit || "") }));
    }
  }
}

if (home) {
  Chart.defaults.font.family = "Inter, sans-serif";
  draw();
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["class"] });
  // Nobody looks at a hidden page; one that is looked at again is renewed at once.
  home.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden) event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) htmx.trigger(home, "look");
  });
  home.addEventListener("htmx:afterRequest", (event) => {
    const renewed = event.detail.successful && event.detail.xhr.responseText.includes("home-drawn");
    home.classList.toggle("home-is-stale", !renewed);
    if (renewed) draw();
  });
}
