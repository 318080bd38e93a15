// shallop.js for `import`: the same file, which then waits for `shallop.init({…})`.
import "./shallop.js";

const { shallop } = window;
if (shallop.options.endpoint === "/") {
  shallop.options.endpoint = new URL(".", import.meta.url).href;
}
export default shallop;
