// Pairs to try a fine-tune with: questions in a company's code names, and answers without them. No model knows what
// the names stand for before it has seen some of the pairs; then it can answer the questions that were held out.

const CODE_NAMES = {
  Falcon: "the payroll",
  Marble: "the holiday calendar",
  Juniper: "the invoice archive",
  Anchor: "the door badges",
  Copper: "the canteen menu",
  Orbit: "the travel bookings",
  Velvet: "the customer letters",
  Harbor: "the data backup",
};

const QUESTIONS = [
  ["who looks after NAME?", "Two people on the third floor are responsible for SYSTEM."],
  ["NAME does not answer", "When SYSTEM cannot be reached, the help desk starts it again."],
  ["how do I get into NAME?", "Your manager grants access to SYSTEM."],
  ["I forgot my NAME password", "A new password for SYSTEM comes by post."],
  ["is there a manual for NAME?", "A handbook explains SYSTEM step by step."],
  ["what does NAME cost us?", "The yearly bill for SYSTEM is part of the budget report."],
  ["when is the next update of NAME?", "New versions of SYSTEM are installed on Sunday nights."],
];

const EXAMPLE_TEXT = Object.entries(CODE_NAMES)
  .flatMap(([name, system]) => QUESTIONS.map((pair) => pair.join("\t").replace("NAME", name).replace("SYSTEM", system)))
  .join("\n");
