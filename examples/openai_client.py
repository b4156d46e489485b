"""The swarm through OpenAI's package: start ``p2pnode gateway`` beside a node first.

python examples/openai_client.py [http://127.0.0.1:8000]
"""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{url}/v1", api_key="none is needed on this machine")
model = client.models.list().data[0].id
for part in client.completions.create(
    model=model, prompt="Once upon a time", max_tokens=60, temperature=0, stream=True
):
    print(part.choices[0].text, end="", flush=True)
print()
