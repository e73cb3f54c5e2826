"""The local page: what `moda ui` serves. Needs the extra `ui`; only `page`, `server` and the tabs
import Gradio."""
