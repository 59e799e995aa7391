import { readFileSync } from "node:fs";
import ts from "typescript";
import { expect, it } from "vitest";

const root = new URL("..", import.meta.url).pathname;

it("the README's snippets compile", () => {
  const readme = readFileSync(root + "README.md", "utf8");
  const snippets = new Map(
    [...readme.matchAll(/^```(tsx?)\n([^]*?)^```$/gm)].map(([, kind, code], i) => [`${root}readme-${i + 1}.${kind}`, code!]),
  );
  expect(snippets.size).toBeGreaterThanOrEqual(8);

  const { config } = ts.readConfigFile(root + "tsconfig.json", (path) => ts.sys.readFile(path)) as { config: object };
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  Object.assign(options, {
    jsx: ts.JsxEmit.ReactJSX,
    paths: { fanlight: ["./src/index.ts"], "fanlight/react": ["./src/react.ts"] },
  });
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.fileExists = (path) => snippets.has(path) || fileExists(path);
  host.readFile = (path) => snippets.get(path) ?? readFile(path);
  host.getSourceFile = (path, target, ...rest) =>
    snippets.has(path) ? ts.createSourceFile(path, snippets.get(path)!, target) : getSourceFile(path, target, ...rest);

  const program = ts.createProgram([...snippets.keys()], options, host);
  const problems = ts.getPreEmitDiagnostics(program).map(({ file, start = 0, messageText }) => {
    const line = file ? `${file.fileName.replace(root, "")}:${file.getLineAndCharacterOfPosition(start).line + 1}` : "";
    return `${line} ${ts.flattenDiagnosticMessageText(messageText, " ")}`;
  });
  expect(problems).toEqual([]);
});

it("the README names the current version", () => {
  const { version } = JSON.parse(readFileSync(root + "package.json", "utf8")) as { version: string };
  expect(readFileSync(root + "README.md", "utf8")).toContain(`fanlight-${version}.tgz`);
});
