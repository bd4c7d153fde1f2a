// The loss of a training, drawn while it goes on.

const WIDE = 600, HIGH = 200, LEFT = 44, BASE_LINE = 172, TOP = 12, RIGHT = 10;

/** A picture of [step, loss] points in rising order; an empty frame while there are none. */
function lossCurve(points, totalSteps) {
  const last = Math.max(totalSteps ?? 0, points.at(-1)?.[0] ?? 1);
  const ceiling = roundUp(Math.max(0, ...points.map(([, loss]) => loss)));
  const x = (step) => LEFT + ((WIDE - LEFT - RIGHT) * step) / last;
  const y = (loss) => BASE_LINE - ((BASE_LINE - TOP) * loss) / ceiling;
  const path = points.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
  const label = points.length ? `Loss: ${points[0][1].toFixed(3)} at step ${points[0][0]}, ${points.at(-1)[1].toFixed(3)} at step ${points.at(-1)[0]}` : "Loss: no step yet";
  return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": label }, ...axes(last, ceiling, x, y), ...marks(points, path, x, y));
}

function axes(last, ceiling, x, y) {
  const across = [0, 0.5, 1].map((part) => ceiling * part);
  const lines = across.map((loss) => svg("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(loss), y2: y(loss) }));
  const losses = across.map((loss) => svg("text", { x: LEFT - 8, y: y(loss) + 4, "text-anchor": "end" }, loss.toPrecision(2)));
  const steps = [0, last].map((step, i) => svg("text", { x: x(step), y: HIGH - 10, "text-anchor": i ? "end" : "start" }, i ? `step ${step}` : "0"));
  return [...lines, ...losses, ...steps];
}

function marks(points, path, x, y) {
  if (!points.length) return [];
  const [step, loss] = points.at(-1);
  return [svg("polyline", { points: path }), svg("circle", { cx: x(step), cy: y(loss), r: 4 })];
}

/** The next of 1, 2, 5 times a power of ten; 1 for nothing. */
function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((times) => times * power).find((bound) => value <= bound);
}
