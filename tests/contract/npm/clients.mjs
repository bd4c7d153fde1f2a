// Calls the service with each client as its documentation shows, and prints what came back, one JSON line for each.
// Usage: node clients.mjs URL MODEL RERANKER QUERY PASSAGE...
import { createCohere } from "@ai-sdk/cohere";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { CohereEmbeddings, CohereRerank } from "@langchain/cohere";
import { embed, embedMany, rerank } from "ai";
import { CohereClient, CohereClientV2 } from "cohere-ai";
import OpenAI from "openai";

const [url, model, reranker, query, ...passages] = process.argv.slice(2);

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
const compatible = createOpenAICompatible({ name: "service", baseURL: `${url}/v1`, apiKey: "any" });
const cohereSdk = createCohere({ baseURL: `${url}/v2`, apiKey: "any" });
const cohere = new CohereClient({ environment: url, token: "any" });
const cohereV2 = new CohereClientV2({ environment: url, token: "any" });
const langchain = new CohereEmbeddings({ model, client: cohere });

const ranking = (results) => results.map((r) => [r.index ?? r.originalIndex, r.relevanceScore ?? r.score]);

const calls = {
  "openai passages": async () =>
    (await openai.embeddings.create({ model, input: passages })).data.map((item) => item.embedding),
  "openai query": async () =>
    (await openai.embeddings.create({ model, input: query, encoding_format: "float", input_type: "query" })).data.map(
      (item) => item.embedding,
    ),
  "openai models": async () => (await openai.models.list()).data.map((item) => item.id),
  "openai error": async () =>
    openai.embeddings.create({ model: "nothing-here", input: "a" }).catch((e) => [e.constructor.name, e.message]),
  "ai-sdk/openai-compatible passages": async () =>
    (await embedMany({ model: compatible.embeddingModel(model), values: passages })).embeddings,
  "ai-sdk/openai-compatible usage": async () =>
    (await embed({ model: compatible.embeddingModel(model), value: query })).usage.tokens,
  "ai-sdk/cohere query": async () => [
    (await embed({ model: cohereSdk.embeddingModel(model), value: query })).embedding,
  ],
  "ai-sdk/cohere passages": async () =>
    (
      await embedMany({
        model: cohereSdk.embeddingModel(model),
        values: passages,
        providerOptions: { cohere: { inputType: "search_document", truncate: "END" } },
      })
    ).embeddings,
  "ai-sdk/cohere rerank": async () =>
    ranking((await rerank({ model: cohereSdk.reranking(reranker), query, documents: passages, topN: 3 })).ranking),
  "langchain/cohere passages": async () => langchain.embedDocuments(passages),
  "langchain/cohere query": async () => [await langchain.embedQuery(query)],
  "langchain/cohere rerank": async () =>
    ranking(await new CohereRerank({ model: reranker, client: cohere }).rerank(passages, query, { topN: 3 })),
  "cohere-ai passages": async () =>
    (await cohereV2.embed({ model, texts: passages, inputType: "search_document", embeddingTypes: ["float"] }))
      .embeddings.float,
  "cohere-ai rerank": async () =>
    ranking((await cohereV2.rerank({ model: reranker, query, documents: passages, topN: 3 })).results),
};

for (const [name, call] of Object.entries(calls)) {
  const got = await call().catch((error) => ({ failed: String(error.stack ?? error).slice(0, 2000) }));
  console.log(JSON.stringify({ name, got }));
}
