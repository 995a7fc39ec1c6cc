// The pointer over a chart: a line at the nearest step, and the values there.
for (const figure of document.querySelectorAll("figure[data-series]")) {
  const series = JSON.parse(figure.dataset.series);
  const svg = figure.querySelector("svg"), cursor = svg.querySelector(".cursor"), tip = figure.querySelector(".tip");
  const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), outer = figure.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale;
    const at = series.map(([, points]) => nearest(points, x)), first = nearest(at, x);
    for (const name of ["x1", "x2"]) cursor.setAttribute(name, first[0]);
    cursor.setAttribute("y1", 12);
    cursor.setAttribute("y2", svg.viewBox.baseVal.height - 34);
    cursor.removeAttribute("hidden");
    const values = series.map(([name], i) =>
      name + " " + at[i][3] + (at[i][2] === first[2] ? "" : " (step " + at[i][2] + ")"));
    tip.textContent = ["step " + first[2], ...values].join(" · ");
    tip.hidden = false;
    const left = box.left - outer.left + first[0] / scale;
    tip.style.left = Math.max(8, Math.min(left + 10, figure.clientWidth - tip.offsetWidth - 8)) + "px";
  });
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("hidden", ""); tip.hidden = true; });
}
