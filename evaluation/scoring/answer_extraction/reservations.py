"""Words of twelve languages by which an answer is conditional, taken back or left open."""

from evaluation.scoring.answer_extraction.languages import Table

CONDITION: Table = {
    "en": r"if(?! (?:I|we) (?:had to|have to|must|am forced|were forced))|unless|"
    r"had(?! to (?:choose|pick|guess|answer|select|decide))|assuming|"
    r"depending|depends|would have been|"
    r"tempt\w+|initially|at first|first (?:thought|glance)|mistaken?(?:ly)?|distractor|"
    r"(?:some|many|others|students|people|you|one|everyone) (?:\w+ )?(?:think|choose|pick|say)|"
    r"originally|thought|confus\w+|suggests? that|incorrectly",
    "fr": r"si (?:le|la|l'|on|un|une|elle|les)|s'il|selon|pourrait|tenté|à première vue",
    "es": r"si (?:el|la|los|las|se|un|una|fuera|hubiera)|podría|tentador|a primera vista|en caso",
    "pt": r"se (?:o|a|os|as|houvesse|fosse|não)|poderia|à primeira vista",
    "de": r"wenn|falls|könnte|sofern|auf den ersten blick|denkbar",
    "it": r"potrebbe|a prima vista",
    "ru": r"если|бы|на первый взгляд",
    "zh": r"如果|若|假如|乍看",
    "ja": r"もし|であれば|なら(?!ば)|一見",
    "ko": r"만약|라면",
    "ar": r"لو|إذا كانت?",
    "hi": r"यदि|अगर",
}
"""A declaration in such a sentence is of another case, of others, or of a first impression."""

RETRACTION: Table = {
    "en": r"(?<![a-z] )wait(?=\s*(?:[,.!…:—–]|no\b|I\b))|(?:but|oh|no),? wait|hmm|"
    r"actually,? (?:let me|wait|no|I|that|on)|let me (?:re|double|correct|fix)[-\w]*|"
    r"on (?:second thought|reflection)|correction(?=:)|corrected answer|scratch that|"
    r"I (?:made a mistake|apologi[sz]e|was wrong|misread|stand corrected)|"
    r"(?<![a-z] )(?:no, )?that(?:'s| is| was) (?:not (?:right|correct)|wrong)",
    "fr": r"attendez|je me corrige|en fait, (?:non|la|c'est)|rectification(?= ?:)",
    "es": r"espera(?=[,.:!…])|corrijo|rectifico|mejor dicho|en realidad, (?:la|no|es)",
    "pt": r"espere(?=[,.:!…])|corrigindo|na verdade, (?:a|não|é)",
    "de": r"moment(?=\s*[,.!:—–])|warte(?=[,.:!…])|korrektur(?=:)|ich korrigiere",
    "it": r"anzi|aspett[ai](?=[,.:!…])|correzione(?=:)|mi correggo",
    "ru": r"подожди(?:те)?|стоп|исправл(?:яюсь|юсь)|поправка(?=:)",
    "zh": r"(?<=[。.!?\n ])等等(?=[,。.!])|等一下|(?<=[。.!?\n ])不对[,。]|更正(?=:)",
    "ja": r"待って|訂正|いや、",
    "ko": r"잠깐|아니, |정정(?=:)",
    "ar": r"انتظر|تصحيح(?=:)|مهلا",
    "hi": r"रुकिए",
}
"""Where a model takes back what it declared before."""

REFUSAL: Table = {
    "en": r"(?:I|we)(?:'m| am| are)? (?:cannot|can't|can not|couldn't|unable to|not able to) "
    r"(?:\w+ ){0,3}?(?:answer|determine|provide|give|choose|select|decide|help|conclude)|"
    r"none of (?:the|these) (?!other)(?:\w+ ){0,2}(?:options?|choices?|answers?)|"
    r"(?:not enough|insufficient) information|"
    r"answer (?:is|would be) (?:either )?\(?[A-J]\)? or \(?[A-J](?![\w'])|"
    r"answer (?:is|would be) (?:\(?[A-J]\)?[.:]? ?)?\(?(?:none|not (?:listed|given|provided|"
    r"among))|"
    r"(?:answer|diagnosis) (?:is|must be|has to be|should be) (?:either|one of)|"
    r"(?:answer|it|diagnosis) (?:could|may|might) be (?:either )?\(?[A-J]\)? or",
    "fr": r"je ne (?:peux|suis|saurais) pas|aucune des (?:propositions|réponses|options)",
    "es": r"no puedo (?:\w+ ){0,2}?(?:responder|determinar|dar|elegir)|"
    r"ninguna de las (?:opciones|respuestas)",
    "pt": r"não (?:posso|consigo) (?:\w+ ){0,2}?(?:responder|determinar|dar|escolher)|"
    r"nenhuma das (?:opções|alternativas)",
    "de": r"ich kann (?:\w+ ){0,4}?(?:nicht|keine)|"
    r"keine der (?:optionen|antworten|antwortmöglichkeiten)",
    "it": r"non (?:posso|sono in grado)|nessuna delle (?:opzioni|risposte)",
    "ru": r"не могу|ни один из вариантов",
    "zh": r"无法(?:回答|确定|判断|给出)|不能(?:回答|确定)|没有正确(?:答案|选项)",
    "ja": r"答えられません|判断できません|決められません|該当する選択肢はありません",
    "ko": r"답변할 수 없|판단할 수 없|결정할 수 없",
    "ar": r"لا (?:أستطيع|يمكنني)",
    "hi": r"उत्तर नहीं दे|तय नहीं कर",
}
"""That the model leaves the question open in the end."""
