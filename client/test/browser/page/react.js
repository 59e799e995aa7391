// What the package and the app take from React: named, because a bundler cannot see the names of a CommonJS module.
export { createContext, createElement, StrictMode, useContext, useEffect, useMemo, useRef, useSyncExternalStore } from "react";
export { createRoot } from "react-dom/client";
