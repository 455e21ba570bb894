"""What every tab is drawn with: charts, tables, tokens, as HTML text. Imports nothing of ours and no Gradio."""
