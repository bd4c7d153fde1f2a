"""LangChain's own standard tests of embeddings, over the OpenAI form and the Cohere form of the running service."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_cohere import CohereEmbeddings
from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

from tests.service_process import STARTER, Service


class OverTheService(EmbeddingsIntegrationTests):
    """The standard tests; properties cannot take fixtures, so the address is put onto the class."""

    url = ""

    @pytest.fixture(autouse=True)
    def _address(self, service: Service) -> None:
        type(self).url = service.url


class TestOpenAIForm(OverTheService):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        # the last one, because its token ids are of another vocabulary
        return {"model": STARTER, "base_url": f"{self.url}/v1", "api_key": "any", "check_embedding_ctx_length": False}


class TestCohereForm(OverTheService):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return CohereEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": STARTER, "base_url": self.url, "cohere_api_key": "any"}
