// The same consumer with the SDK that @hey-api/openapi-ts generates.
import assert from "node:assert/strict";
import { cancelTask, createTask, getTask, listTaskEvents, listTasks, rerunTask } from "./hey";
import { client } from "./hey/client.gen";
import type { ApiErrorCode, Task, Webhooks } from "./hey";

client.setConfig({ baseUrl: process.env.COUNTERFOIL_URL!, auth: () => process.env.COUNTERFOIL_KEY! });

async function untilFinal(task_id: string): Promise<Task> {
  for (;;) {
    const { data } = await getTask({ path: { task_id }, throwOnError: true });
    if (data.status !== "queued" && data.status !== "running") return data;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// What a receiver switches over; the compiler says when a kind of message is missing.
export function toldBy(message: Webhooks["body"]): string {
  switch (message.type) {
    case "task.succeeded":
    case "task.canceled":
    case "task.refunded":
      return message.data.task_id;
    case "task.failed":
      return message.data.error?.message ?? "";
    case "account.balance_low":
      return message.data.available_credits;
  }
}

async function main(): Promise<void> {
  const { data: submitted, response } = await createTask({
    body: { model: "text-analyze", input: { text: "Both halves match." }, client_reference: "sdk" },
    headers: { "Idempotency-Key": "sdk-1" },
    throwOnError: true,
  });
  assert.equal(response.status, 202);
  const task = await untilFinal(submitted.task_id);
  assert.equal(task.status, "succeeded");

  const rerun = await rerunTask({ path: { task_id: task.task_id }, throwOnError: true });
  assert.equal((await untilFinal(rerun.data.task_id)).rerun_of, task.task_id);

  const long = await createTask({ body: { model: "echo", input: { seconds: 60 } }, throwOnError: true });
  const canceled = await cancelTask({ path: { task_id: long.data.task_id }, throwOnError: true });
  assert.equal(canceled.data.status, "canceled");

  const first = await listTasks({ query: { client_reference: "sdk", limit: 1, order: "asc" }, throwOnError: true });
  const cursor = first.data.next_cursor;
  assert(cursor);
  const next = await listTasks({ query: { client_reference: "sdk", cursor, order: "asc" }, throwOnError: true });
  assert.deepEqual([...first.data.data, ...next.data.data].map((row) => row.task_id), [task.task_id, rerun.data.task_id]);

  const events = await listTaskEvents({ path: { task_id: task.task_id }, query: { after: 1 }, throwOnError: true });
  assert(events.data); // a stream could have no more to say
  assert.equal(events.data.data.at(-1)?.type, "task.succeeded");

  const { error } = await getTask({ path: { task_id: "task_nobody" } });
  const code: ApiErrorCode | undefined = error?.error.code;
  assert.equal(code, "task_not_found");
}

main().then(() => console.log("done"));
