// Server-sent events over fetch: the browser's own EventSource can not send a key.

/** Gives {id, event, data} until the stream ends. */
async function* eventsOf(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.data) yield { id: fields.id, event: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

/** A job's events until it has ended; asks again, behind the last entry, where a connection breaks. */
async function* jobEvents(jobId, signal) {
  let last = "0";
  for (;;) {
    try {
      const headers = { Accept: "text/event-stream", "Last-Event-ID": last };
      for await (const event of eventsOf(await send(`jobs/${jobId}/events`, undefined, { headers, signal }))) {
        last = event.id ?? last;
        yield event;
        if (event.event === "job" && hasEnded(event.data)) return;
      }
    } catch (error) {
      if (signal.aborted || (error.status >= 400 && error.status < 500 && error.status !== 429)) throw error;
    }
    await sleep(2000);
    signal.throwIfAborted();
  }
}

const hasEnded = (job) => ["completed", "failed", "cancelled"].includes(job.status);
