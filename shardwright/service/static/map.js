// Draws the map of a curation: points that can be moved, enlarged, coloured and asked.
"use strict";

(() => {
  const PALETTE = [
    "#2f6f8f", "#c98a3c", "#6a9a5b", "#b4472e", "#7d6bb0", "#3aa6a0", "#a8567f", "#8a8f3c",
    "#4c78c0", "#d07a5c", "#58a06c", "#9a6f4f", "#b58fd0", "#5fa8cf", "#c2b04a", "#7f8a94",
    "#cf6f8f", "#4f8f7a", "#8f5f9f", "#a0a34f", "#b0b4ba",
  ];
  const SCALE = [
    "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58",
    "#b5de2b", "#fde725",
  ];

  function bytes(text) {
    return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  }

  async function unzipped(text) {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return (await new Response(stream).text()).split("\n");
  }

  function floats(text) {
    return new Float32Array(bytes(text).buffer);
  }

  // Points by the colour that they get: [{name, colour, places}], places in the data.
  function groups(colour, count) {
    const made = [];
    if (colour.kind === "names") {
      const values = bytes(colour.values);
      colour.names.forEach((name, i) => made.push({ name, colour: PALETTE[i], places: [] }));
      for (let i = 0; i < count; i++) made[values[i]].places.push(i);
      return made;
    }
    const values = floats(colour.values);
    const sorted = Float32Array.from(values.filter(Number.isFinite)).sort();
    const edges = SCALE.map((_, i) => sorted[Math.floor((i * sorted.length) / SCALE.length)]);
    SCALE.forEach((tone, i) => {
      const end = i + 1 < edges.length ? edges[i + 1] : sorted[sorted.length - 1];
      const name = `${Number(edges[i]).toPrecision(3)} to ${Number(end).toPrecision(3)}`;
      made.push({ name, colour: tone, places: [] });
    });
    made.push({ name: "(none)", colour: PALETTE[20], places: [] });
    for (let i = 0; i < count; i++) {
      let bin = SCALE.length;
      if (Number.isFinite(values[i])) {
        bin = 0;
        while (bin + 1 < edges.length && values[i] >= edges[bin + 1]) bin++;
      }
      made[bin].places.push(i);
    }
    return made.filter((one) => one.places.length);
  }

  function button(label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.addEventListener("click", act);
    return made;
  }

  async function draw(place) {
    const data = JSON.parse(place.querySelector(".map-data").textContent);
    const [x, y] = [floats(data.x), floats(data.y)];
    const plot = place.querySelector(".map-plot");
    const tools = place.querySelector(".map-tools");
    const told = place.querySelector(".map-told");
    plot.hidden = tools.hidden = false;
    place.querySelector(".map-still").style.display = "none";
    const chart = echarts.init(plot, null, { renderer: "canvas" });
    const size = Math.max(2, Math.min(7, 900 / Math.sqrt(data.count)));
    const valued = data.colours.map((one) =>
      one.kind === "names" ? bytes(one.values) : floats(one.values));
    let paths = null;
    let shown = [];

    function about(i) {
      const facts = data.colours.map((one, which) => {
        const value = valued[which][i];
        return `${one.name}: ${one.kind === "names" ? one.names[value] : value.toPrecision(6)}`;
      });
      return [paths ? paths[i] : "", ...facts];
    }

    function colour(which) {
      const ink = getComputedStyle(plot).getPropertyValue("--ink");
      const faint = getComputedStyle(plot).getPropertyValue("--soft");
      shown = groups(data.colours[which], data.count);
      chart.setOption({
        animation: false,
        grid: { left: 8, right: 8, top: 8, bottom: 8 },
        legend: {
          type: "scroll", orient: "vertical", right: 8, top: 8,
          textStyle: { color: ink, width: 150, overflow: "truncate" },
          pageTextStyle: { color: faint }, pageIconColor: faint,
        },
        tooltip: {
          // An element, not HTML: what records are called stays text.
          formatter: (point) => {
            const box = document.createElement("div");
            about(shown[point.seriesIndex].places[point.dataIndex]).forEach((line) => {
              const row = document.createElement("div");
              row.textContent = line;
              box.append(row);
            });
            return box;
          },
          confine: true,
        },
        xAxis: { type: "value", show: false, scale: true },
        yAxis: { type: "value", show: false, scale: true },
        dataZoom: [
          { type: "inside", xAxisIndex: 0, filterMode: "none" },
          { type: "inside", yAxisIndex: 0, filterMode: "none" },
        ],
        series: shown.map((group) => {
          const flat = new Float32Array(2 * group.places.length);
          group.places.forEach((i, at) => { flat[2 * at] = x[i]; flat[2 * at + 1] = y[i]; });
          return {
            type: "scatter", name: group.name, data: flat, dimensions: ["x", "y"],
            symbolSize: size, large: true, largeThreshold: 0,
            itemStyle: { color: group.colour, opacity: 0.75 },
          };
        }),
      }, { replaceMerge: ["series"] });
    }

    function zoom(factor, dx, dy) {
      const [across, up] = chart.getOption().dataZoom;
      const moved = [[across, dx], [up, dy]].map(([one, shift], dataZoomIndex) => {
        const half = Math.min(50, ((one.end - one.start) / 2) * factor);
        const way = (one.start + one.end) / 2 + shift * 2 * half;
        const middle = Math.min(100 - half, Math.max(half, way));
        return { type: "dataZoom", dataZoomIndex, start: middle - half, end: middle + half };
      });
      moved.forEach((action) => chart.dispatchAction(action));
    }

    const label = document.createElement("label");
    const choice = document.createElement("select");
    label.append("Colour by ", choice);
    data.colours.forEach((one, i) => choice.add(new Option(one.name, i)));
    choice.addEventListener("change", () => colour(Number(choice.value)));
    tools.append(
      label,
      button("Nearer", () => zoom(0.5, 0, 0)),
      button("Farther", () => zoom(2, 0, 0)),
      button("All", () => zoom(1e6, 0, 0)),
    );
    plot.tabIndex = 0;
    plot.setAttribute("role", "application");
    plot.setAttribute("aria-label", "Map of records; arrow keys move it, plus and minus enlarge it");
    const keys = {
      "+": [0.5, 0, 0], "=": [0.5, 0, 0], "-": [2, 0, 0], "0": [1e6, 0, 0],
      ArrowLeft: [1, -0.2, 0], ArrowRight: [1, 0.2, 0], ArrowUp: [1, 0, 0.2],
      ArrowDown: [1, 0, -0.2],
    };
    plot.addEventListener("keydown", (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      zoom(...keys[event.key]);
    });
    chart.on("click", (point) => {
      const i = shown[point.seriesIndex].places[point.dataIndex];
      told.textContent = about(i).join(" · ");
      if (!place.dataset.open) return;
      const link = document.createElement("a");
      link.href = place.dataset.open + i;
      link.textContent = "the whole record";
      told.append(" ", link);
    });
    new ResizeObserver(() => chart.resize()).observe(plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener(
      "change", () => colour(Number(choice.value)));
    colour(0);
    paths = await unzipped(data.paths);
    place.dataset.ready = "true";
  }

  document.querySelectorAll(".map").forEach(draw);
})();
