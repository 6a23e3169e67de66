"use strict";

// Draws the bars of what an account's tasks cost, when they are there: with the page, or asked for after it.
const drawUsage = (within) => {
  for (const canvas of within.querySelectorAll("canvas[data-usage]")) {
    if (Chart.getChart(canvas)) continue;
    new Chart(canvas, {
      type: "bar",
      data: JSON.parse(canvas.dataset.usage),
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        plugins: {
          legend: { position: "bottom", labels: { color: "#9ca3af", boxWidth: 10, boxHeight: 10 } },
          tooltip: { filter: (item) => item.raw !== 0 },
        },
        scales: {
          x: { stacked: true, grid: { display: false }, ticks: { color: "#9ca3af", maxRotation: 0, autoSkipPadding: 12 } },
          y: { stacked: true, grid: { color: "rgba(128, 128, 128, 0.2)" }, ticks: { color: "#9ca3af" } },
        },
      },
    });
  }
};

document.addEventListener("DOMContentLoaded", () => drawUsage(document));
document.addEventListener("htmx:afterSettle", (event) => drawUsage(event.target));
