import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    // One worker: the machine is shared, and the suite takes seconds.
    fileParallelism: false,
    restoreMocks: true,
    // Beyond what any of them needs: on a busy machine the README's compilation took half a minute.
    testTimeout: 120_000,
  },
});
