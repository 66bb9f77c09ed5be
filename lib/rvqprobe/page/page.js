"use strict";
// Draws the figures, stacks their panels where the page is narrow, and saves them and their numbers.
const NARROW = matchMedia("(max-width: 40rem)");
const PANEL = 260, ABOVE = 90, BELOW = 150, GAP = 100; // pixels: a stacked panel, the margins about all of them, between two

function stacked(layout) {
  const narrow = structuredClone(layout);
  const titles = (narrow.annotations || []).filter((note) => note.yanchor === "bottom" && note.yref === "paper");
  const axes = Object.keys(narrow).filter((name) => /^xaxis\d*$/.test(name));
  narrow.margin = { ...narrow.margin, l: 55, r: 10 };
  for (const name of Object.keys(narrow)) {
    if (/^[xy]axis/.test(name) && (narrow[name].type === "category" || narrow[name].categoryarray)) delete narrow[name].dtick;
  }
  if (titles.length > 1) {
    const inside = titles.length * PANEL + (titles.length - 1) * GAP;
    narrow.height = inside + ABOVE + BELOW;
    narrow.margin = { ...narrow.margin, t: ABOVE, b: BELOW };
    narrow.annotations = titles;
    axes.forEach((name, number) => {
      const axis = narrow[name], other = narrow[name.replace("x", "y")];
      if (number >= titles.length) { axis.visible = other.visible = false; return; } // an empty place of the grid
      const top = 1 - (number * (PANEL + GAP)) / inside;
      axis.domain = [0, 1];
      Object.assign(other, { domain: [Math.max(0, top - PANEL / inside), top], showticklabels: true });
      Object.assign(titles[number], { x: 0.5, y: top });
    });
  }
  narrow.title = { ...narrow.title, y: 1 - 20 / narrow.height, font: { size: 13 } };
  return narrow;
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const plot of document.querySelectorAll(".plot")) {
  const { data, layout } = JSON.parse(plot.querySelector("script").textContent);
  const canvas = plot.querySelector(".canvas");
  const draw = () => {
    const looks = NARROW.matches ? stacked(layout) : structuredClone(layout);
    canvas.style.height = `${looks.height}px`;
    Plotly.react(canvas, structuredClone(data), looks, { responsive: true, displaylogo: false, displayModeBar: !NARROW.matches });
  };
  draw();
  NARROW.addEventListener("change", draw);
  canvas.on("plotly_afterplot", () => scalable(canvas));
  scalable(canvas);
  for (const button of plot.querySelectorAll("button")) {
    const format = button.dataset.format, name = plot.dataset.name;
    button.addEventListener("click", () => format === "csv"
      ? save(new Blob([layout.meta.csv], { type: "text/csv" }), `${name}.csv`)
      : Plotly.downloadImage(canvas, { format, filename: name, width: canvas.clientWidth, height: canvas.clientHeight, scale: format === "png" ? 2 : 1 }));
  }
}

function scalable(canvas) { // so that the print stylesheet can fit the figure to the paper
  for (const svg of canvas.querySelectorAll(".main-svg")) {
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  }
}

const all = document.getElementById("all-code");
all?.addEventListener("click", () => {
  const open = all.textContent.startsWith("Show");
  all.textContent = open ? "Hide all code" : "Show all code";
  for (const code of document.querySelectorAll("details.code")) code.open = open;
});
for (const contents of NARROW.matches ? document.querySelectorAll("header details") : []) contents.open = false;
