"use strict";
// Draws the figures of a report with Plotly in the page's own colours, follows light and dark mode, and lets one row of buttons
// show or hide a policy in all figures at once.
(() => {
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const hidden = new Set();
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (name) => css(`--series-${Math.max(0, report.policies.indexOf(name)) % 8}`);

  const isCdf = (figure) => figure.id.startsWith("cdf-");
  const overTime = (figure) => figure.id.startsWith("time-");

  const trace = (figure, series) => {
    const place = Math.max(0, report.policies.indexOf(series.name));
    const lines = series.mode !== "markers";
    const unit = (axis) => axis.replace(" (log)", "");
    return {
      type: lines ? "scatter" : "scattergl",
      name: series.name,
      x: series.x,
      y: series.y,
      text: series.text,
      mode: series.text ? "lines+markers+text" : series.mode,
      textposition: "top right",
      textfont: { size: 10, color: css("--muted") },
      cliponaxis: false,
      visible: !hidden.has(series.name),
      line: { color: colour(series.name), width: overTime(figure) ? 1.5 : 2,
        dash: overTime(figure) ? "solid" : dashes[place % dashes.length],
        shape: overTime(figure) || figure.id === "cdf-tbt" ? "hv" : "linear" },
      marker: { color: colour(series.name), size: lines ? 7 : 4, opacity: lines ? 1 : 0.45 },
      hovertemplate: `<b>%{fullData.name}</b><br>${series.text ? "%{text}<br>" : ""}` +
        `${unit(figure.x)}: %{x:.4~g}<br>${unit(figure.y)}: %{y:.4~g}<extra></extra>`,
    };
  };

  const axis = (figure, side) => ({
    title: { text: figure[side], font: { size: 12, color: css("--muted") }, standoff: 8 },
    type: figure.log.includes(side) ? "log" : "linear",
    range: side === "y" && isCdf(figure) ? [0, 101] : undefined,
    rangemode: figure.log.includes(side) ? undefined : "tozero",
    gridcolor: css("--grid"),
    zeroline: false,
    linecolor: css("--line"),
    tickfont: { size: 11, color: css("--muted") },
    exponentformat: "none",
    separatethousands: true,
    automargin: true,
  });

  // Plotly labels logarithmic axes by decades or by bare digits; people read 1, 2, 5, 10, 20, 50.
  const ticks = (figure, side) => {
    const all = figure.series.flatMap((series) => series[side]).filter((value) => value > 0);
    const low = Math.min(...all);
    const high = Math.max(...all);
    const decades = Math.log10(high / low);
    const digits = decades > 3.2 ? [1] : decades > 2.2 ? [1, 3] : decades > 0.7 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
    const values = [];
    for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const digit of digits) values.push(Number((digit * 10 ** power).toPrecision(3)));
    }
    return { tickmode: "array", tickvals: values, ticktext: values.map((value) => value.toLocaleString("en", { maximumSignificantDigits: 3 })) };
  };

  // room at the right for the labels of points
  const padded = (figure, side) => {
    const all = figure.series.flatMap((series) => series[side]).filter((value) => value > 0).map(Math.log10);
    const width = Math.max(...all) - Math.min(...all) || 0.3;
    return [Math.min(...all) - 0.06 * width, Math.max(...all) + 0.1 * width];
  };

  const layout = (figure) => {
    const x = axis(figure, "x");
    const y = axis(figure, "y");
    if (isCdf(figure)) Object.assign(y, { tickmode: "array", tickvals: [0, 25, 50, 75, 90, 99] });
    if (figure.id === "frontier") x.range = padded(figure, "x");
    if (x.type === "log") Object.assign(x, ticks(figure, "x"));
    if (y.type === "log") Object.assign(y, ticks(figure, "y"));
    return {
      height: 320,
      margin: { l: 56, r: 16, t: 12, b: 48 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: css("--font"), size: 12, color: css("--ink") },
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink"), size: 12 } },
      hovermode: figure.id === "scatter" || figure.id === "frontier" ? "closest" : "x",
      showlegend: false,
      xaxis: x,
      yaxis: y,
      shapes: figure.lines.map(([at]) => ({ type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper",
        line: { color: css("--muted"), width: 1, dash: "dot" } })),
      annotations: figure.lines.map(([at, text]) => ({ x: x.type === "log" ? Math.log10(at) : at, y: 1, yref: "paper", text,
        showarrow: false, xanchor: "left", yanchor: "top", xshift: 4, font: { size: 11, color: css("--muted") } })),
    };
  };

  const draw = () => {
    for (const figure of report.figures) {
      const place = document.getElementById(figure.id);
      if (place) {
        Plotly.react(place, figure.series.map((series) => trace(figure, series)), layout(figure),
          { responsive: true, displaylogo: false, displayModeBar: false });
      }
    }
  };

  for (const button of document.querySelectorAll("button[data-policy]")) {
    button.addEventListener("click", () => {
      const policy = button.dataset.policy;
      if (!hidden.delete(policy)) hidden.add(policy);
      button.setAttribute("aria-pressed", String(!hidden.has(policy)));
      draw();
    });
  }
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", () => {
      const source = document.getElementById(button.dataset.copy);
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      const copied = navigator.clipboard ? navigator.clipboard.writeText(source.textContent) : Promise.reject();
      copied.then(() => { button.textContent = "Copied"; }, () => { document.execCommand("copy"); button.textContent = "Copied"; });
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
