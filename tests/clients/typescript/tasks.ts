// A consumer with the types of openapi-typescript and openapi-fetch: submit, wait, list, cancel, rerun, errors.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

type Task = components["schemas"]["Task"];
type Final = Extract<Task["status"], "succeeded" | "failed" | "canceled">;

const api = createClient<paths>({
  baseUrl: process.env.COUNTERFOIL_URL!,
  headers: { Authorization: `Bearer ${process.env.COUNTERFOIL_KEY}` },
});

const isFinal = (status: Task["status"]): status is Final => status !== "queued" && status !== "running";

async function untilFinal(taskId: string): Promise<Task> {
  let etag: string | undefined;
  for (;;) {
    const { data, error, response } = await api.GET("/v1/tasks/{task_id}", {
      params: { path: { task_id: taskId }, header: { "If-None-Match": etag } },
    });
    if (error) throw new Error(error.error.code);
    if (data && isFinal(data.status)) return data;
    etag = response.headers.get("ETag") ?? undefined;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function main(): Promise<void> {
  const submitted = await api.POST("/v1/tasks", {
    params: { header: { "Idempotency-Key": "typescript-1" } },
    body: { model: "text-analyze", input: { text: "Both halves match.", keywords: 2 }, client_reference: "ts" },
  });
  assert.equal(submitted.response.status, 202);
  assert(submitted.data);
  const task = await untilFinal(submitted.data.task_id);
  assert.equal(task.status, "succeeded");
  assert.equal(task.billing.charged_credits, task.billing.quoted_credits);
  assert.equal(task.error, null);

  const again = await api.POST("/v1/tasks/{task_id}/rerun", { params: { path: { task_id: task.task_id } } });
  assert.equal(again.data?.rerun_of, task.task_id);

  const long = await api.POST("/v1/tasks", { body: { model: "echo", input: { seconds: 60 }, client_reference: "ts" } });
  const canceled = await api.POST("/v1/tasks/{task_id}/cancel", {
    params: { path: { task_id: long.data!.task_id } },
    body: { reason: "seen enough" },
  });
  assert.equal(canceled.data?.cancel_reason, "seen enough");

  const page = await api.GET("/v1/tasks", {
    params: { query: { status: ["succeeded", "canceled"], client_reference: "ts", limit: 1, expand: ["billing"] } },
  });
  assert.equal(page.data?.has_more, true);
  assert.equal(page.data.data[0]?.billing?.currency, "USD");
  assert.equal(page.data.data[0]?.usage, undefined);

  const events = await api.GET("/v1/tasks/{task_id}/events", { params: { path: { task_id: task.task_id } } });
  assert(events.data && typeof events.data !== "string"); // a stream would be text
  assert.deepEqual(events.data.data.map((event) => event.type), ["task.queued", "task.running", "task.succeeded"]);

  const refused = await api.POST("/v1/tasks", { body: { model: "nobody", input: {} } });
  assert.equal(refused.error?.error.code, "unsupported_model");
  assert.equal(refused.error.error.param, "/model");
}

main().then(() => console.log("done"));
