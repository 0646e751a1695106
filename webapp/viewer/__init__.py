"""The slice viewer: its Gradio component, the binary and JSON routes it talks to, and click-to-segment behind them."""
