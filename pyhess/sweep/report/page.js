"use strict";
// Draws the figures of the report from the JSON in the page, adds their controls and builds the file to download.
(function () {
  document.documentElement.classList.add("drawing");
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const config = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]};
  const drawn = [];

  function themed(layout) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = (given) => Object.assign({}, given, {
      gridcolor: colour("--grid"), linecolor: colour("--line"), tickcolor: colour("--line"), showline: true, ticks: "outside",
    });
    return Object.assign({}, layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {family: style.fontFamily, size: 13, color: colour("--text")},
      hoverlabel: {bgcolor: colour("--card"), bordercolor: colour("--line"), font: {color: colour("--text")}, align: "left"},
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    });
  }

  // Of a logarithmic axis: left to itself, Plotly writes the digits 2 to 9 over each other.
  function ticks(traces, name) {
    let low = Infinity, high = 0;
    for (const trace of traces) {
      for (const value of trace[name]) {
        if (typeof value === "number" && value > 0) {
          low = Math.min(low, value);
          high = Math.max(high, value);
        }
      }
    }
    const decades = Math.log10(high / low);
    if (decades >= 3 && decades < 9) return {dtick: 1};
    return decades >= 0.7 && decades < 3 ? {dtick: "D2"} : {};
  }

  function button(text, pressed, action) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-pressed", String(pressed));
    made.addEventListener("click", () => {
      const now = made.getAttribute("aria-pressed") !== "true";
      made.setAttribute("aria-pressed", String(now));
      action(now);
    });
    return made;
  }

  function build(element, figure) {
    const plot = element.querySelector(".plot");
    const caption = element.querySelector(".caption");
    const controls = document.createElement("div");
    controls.className = "controls";
    const log = {};
    let panel = 0;

    function layout() {
      const made = themed(figure.panels[panel].layout);
      for (const name of Object.keys(log)) {
        const axis = made[name + "axis"];
        if (log[name] !== (axis.type === "log")) delete axis.dtick;
        axis.type = log[name] ? "log" : "linear";
        if (log[name]) Object.assign(axis, ticks(figure.panels[panel].data, name));
      }
      return made;
    }
    function draw() {
      return Plotly.react(plot, figure.panels[panel].data, layout(), config);
    }

    if (figure.panels.length > 1) {
      const label = document.createElement("label");
      const choice = document.createElement("select");
      figure.panels.forEach((one, i) => choice.add(new Option(one.label, String(i))));
      choice.addEventListener("change", () => {
        panel = Number(choice.value);
        caption.textContent = figure.panels[panel].caption;
        draw();
      });
      label.append("Cells: ", choice);
      controls.append(label);
    }
    for (const name of figure.scales) {
      log[name] = figure.panels[0].layout[name + "axis"].type === "log";
      const toggle = button("log " + name, log[name], (now) => { log[name] = now; draw(); });
      toggle.dataset.scale = name;
      controls.append(toggle);
    }
    if (controls.childNodes.length) element.insertBefore(controls, plot);
    drawn.push(draw);
    return draw();
  }

  const all = [];
  for (const figure of report.figures) {
    all.push(build(document.getElementById("figure-" + figure.ident), figure));
  }
  Promise.all(all).then(() => { document.documentElement.dataset.ready = "true"; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((draw) => draw()));

  const download = document.getElementById("download");
  download.hidden = false;
  download.addEventListener("click", async () => {
    const packed = Uint8Array.from(atob(document.getElementById("report-table").textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const file = new Blob([await new Response(stream).arrayBuffer()], {type: "text/csv;charset=utf-8"});
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = report.csv;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
})();
