"""What engines run: model directories in Hugging Face's formats, with random weights of any shape or small ones trained here.

Modules here may need the extra ``engine`` (torch, safetensors, tokenizers). Nothing here serves or schedules.
"""
