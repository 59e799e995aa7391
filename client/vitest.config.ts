import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    // One worker: the machine is shared, and the suite takes seconds.
    fileParallelism: false,
    restoreMocks: true,
  },
});
