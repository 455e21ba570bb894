"""LabGPT, built from the parts in this folder. Importing it makes the library's Auto classes know `labgpt`."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from .configuration_labgpt import LabGPTConfig
from .modeling_labgpt import LabGPTForCausalLM, LabGPTForSequenceClassification, LabGPTModel

AutoConfig.register(LabGPTConfig.model_type, LabGPTConfig, exist_ok=True)
AutoModel.register(LabGPTConfig, LabGPTModel, exist_ok=True)
AutoModelForCausalLM.register(LabGPTConfig, LabGPTForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(LabGPTConfig, LabGPTForSequenceClassification, exist_ok=True)

__all__ = ["LabGPTConfig", "LabGPTForCausalLM", "LabGPTForSequenceClassification", "LabGPTModel"]
