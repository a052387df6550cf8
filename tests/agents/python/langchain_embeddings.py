"""LangChain's embeddings of documents and of questions. Prints what came of them as JSON.

BASE_URL=… API_KEY=… python langchain_embeddings.py chat search
"""

import json
import os

from langchain_openai import OpenAIEmbeddings

TEXTS = ["a red fish", "a blue bird", "a green tree"]

# Texts as they are: splitting them into OpenAI's tokens would take a download.
embeddings = OpenAIEmbeddings(
    model="small",
    base_url=os.environ["BASE_URL"],
    api_key=os.environ["API_KEY"],
    max_retries=0,
    check_embedding_ctx_length=False,
)
documents = embeddings.embed_documents(TEXTS)
places = [documents.index(embeddings.embed_query(text)) for text in reversed(TEXTS)]
print(json.dumps({"places": places, "dimensions": [len(vector) for vector in documents]}))
