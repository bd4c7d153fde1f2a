// The loss of a training, drawn while it goes on.

const WIDE = 600, HIGH = 200, LEFT = 44, BASE_LINE = 172, TOP = 12, RIGHT = 10;

/** A picture of [step, loss] points in rising order; an empty frame while there are none. */
function lossCurve(points, totalSteps) {
  const last = Math.max(totalSteps ?? 0, points.at(-1)?.[0] ?? 1);
  const ceiling = roundUp(Math.max(0, ...points.map(([, loss]) => loss)));
  const x = (step) => LEFT + ((WIDE - LEFT - RIGHT) * step) / last;
  const y = (loss) => BASE_LINE - ((BASE_LINE - TOP) * loss) / ceiling;
  const path = points.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
  const said = points.map(([step, loss]) => `${loss.toFixed(3)} at step ${step}`);
  const label = points.length ? `Loss: from ${said[0]} to ${said.at(-1)}` : "Loss: no step yet";
  const frame = { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": label };
  return svg("svg", frame, ...axes(last, ceiling, x, y), ...marks(points, path, x, y));
}

function axes(last, ceiling, x, y) {
  const across = [0, 0.5, 1].map((part) => ceiling * part);
  const lines = across.map((loss) => svg("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(loss), y2: y(loss) }));
  const text = (x, y, anchor, words) => svg("text", { x, y, "text-anchor": anchor }, words);
  const losses = across.map((loss) => text(LEFT - 8, y(loss) + 4, "end", loss.toPrecision(2)));
  return [...lines, ...losses, text(LEFT, HIGH - 10, "start", "0"), text(x(last), HIGH - 10, "end", `step ${last}`)];
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
