// Draws the figures in light or dark, as wide as their column; unfolds for print; says where a table scrolls.
(() => {
  "use strict";
  const look = JSON.parse(document.getElementById("look").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches; // there a finger on a figure scrolls the page
  const plots = [...document.querySelectorAll(".plot")];
  const config = { displayModeBar: false, responsive: true, showSendToCloud: false, plotlyServerURL: "" };

  const recoloured = (value, colours) => {
    if (typeof value === "string") return Object.hasOwn(colours, value) ? colours[value] : value;
    if (Array.isArray(value)) return value.map((one) => recoloured(one, colours));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, recoloured(one, colours)]));
  };
  const described = (plot) => JSON.parse(plot.nextElementSibling.textContent);

  const draw = (plot, isDark, width) => {
    const { data, layout } = recoloured(described(plot), isDark ? look.dark : {});
    return Plotly.react(plot, data, { ...layout, width, dragmode: coarse ? false : "zoom" }, config);
  };
  // What is folded away has no width: it is drawn when it is unfolded.
  const isFolded = (plot) => plot.closest("details:not([open])") !== null;
  const drawShown = (within) => plots.filter((plot) => within.contains(plot) && !isFolded(plot)).forEach((plot) => draw(plot, dark.matches));
  const drawAll = () => drawShown(document.body);

  // A saved figure has the sizes of a printed one, a legend of its own, and is light.
  const saved = (plot) => {
    const { data, layout } = described(plot);
    const { width, height, text, small, lines, symbols } = look.saved;
    for (const trace of data) {
      trace.showlegend = Boolean(trace.name);
      if (trace.line?.width) trace.line.width *= lines;
      if (trace.marker?.size) trace.marker.size *= symbols;
      if (trace.colorbar) trace.colorbar.tickfont.size = trace.colorbar.title.font.size = small;
    }
    for (const axis of [layout.xaxis, layout.yaxis]) {
      if (!axis.title) continue;
      axis.title.font.size = text;
      axis.tickfont.size = small;
    }
    const legend = { orientation: "h", x: 0, y: -0.2, yanchor: "top", font: { size: small } };
    return { data, layout: { ...layout, width, height, legend, showlegend: true, font: { ...layout.font, size: text } } };
  };
  const save = (figure, number) => {
    for (const [index, plot] of [...figure.querySelectorAll(".plot")].entries()) {
      const { width, height } = look.saved;
      Plotly.downloadImage(saved(plot), { format: "svg", width, height, filename: `figure-${number}-${index + 1}` });
    }
  };

  document.querySelectorAll("figure").forEach((figure, number) => {
    figure.querySelector(".save")?.addEventListener("click", () => save(figure, number + 1));
  });
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.nextElementSibling.textContent);
      button.textContent = "Copied";
    });
  }

  // What scrolls sideways can be reached by the keyboard, and says that it scrolls.
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const overflows = target.scrollWidth > target.clientWidth;
      target.classList.toggle("overflows", overflows);
      if (overflows) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  document.querySelectorAll(".scroll").forEach((box) => watch.observe(box));

  let printing = false; // then all is unfolded and light, and drawn below
  for (const fold of document.querySelectorAll("details")) {
    fold.addEventListener("toggle", () => fold.open && !printing && drawShown(fold));
  }

  const folds = [];
  addEventListener("beforeprint", () => {
    printing = true;
    for (const fold of document.querySelectorAll("details:not([open])")) {
      fold.open = true;
      folds.push(fold);
    }
    plots.forEach((plot) => draw(plot, false, Math.min(plot.clientWidth, 680)));
  });
  addEventListener("afterprint", () => {
    printing = false;
    for (const fold of folds.splice(0)) fold.open = false;
    drawAll();
  });
  dark.addEventListener("change", drawAll);
  drawAll();
})();
