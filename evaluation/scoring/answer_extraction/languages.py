"""Words of twelve languages that declare, deny or qualify an answer, as regular expressions.

A table holds the alternatives of each language; `pattern` joins tables to one expression. All are
matched without regard to case. Spaced scripts get word boundaries; Chinese, Japanese and Korean do
not part words.
"""

from collections.abc import Mapping

Table = Mapping[str, str]
_UNSPACED = ("zh", "ja", "ko")


def pattern(*tables: Table) -> str:
    """Return one group that matches any alternative of the tables as complete words."""
    spaced = [table[language] for table in tables for language in table if _is_spaced(language)]
    unspaced = [
        table[language] for table in tables for language in table if not _is_spaced(language)
    ]
    groups = []
    if spaced:
        groups.append(rf"(?<!\w)(?:{'|'.join(spaced)})(?!\w)")
    if unspaced:
        groups.append("|".join(unspaced))
    return f"(?:{'|'.join(groups)})"


def _is_spaced(language: str) -> bool:
    return language not in _UNSPACED


ANSWER: Table = {
    "en": r"answers?|answer (?:choices?|options?|letters?)|ans",
    "fr": r"réponses?|reponses?",
    "es": r"respuestas?",
    "pt": r"respostas?|gabarito",
    "de": r"antwort(?:en)?|lösung(?:en)?",
    "it": r"rispost[ae]",
    "ru": r"ответ(?:ы|ом)?(?: под буквой)?",
    "zh": r"答案|答",
    "ja": r"正解|正答|解答|回答|答え|正しい選択肢",
    "ko": r"정답|답변|답",
    "ar": r"[وف]?(?:ال)?(?:إجابات|اجابات|إجابة|اجابة|جواب)",
    "hi": r"उत्तर|जवाब",
}
"""The noun that announces an answer."""

OPTION: Table = {
    "en": r"options?|choices?|alternatives?|letters?|statements?|responses?",
    "fr": r"propositions?|items?|lettres?",
    "es": r"opci[oó]n(?:es)?|alternativas?|letras?|literal|inciso",
    "pt": r"opç(?:ão|ões)|assertivas?|afirmativas?",
    "de": r"optionen|aussagen?|antwortmöglichkeit(?:en)?|buchstaben?",
    "it": r"opzion[ei]|letter[ae]|affermazion[ei]",
    "ru": r"вариант(?:ы|а|ом|ов)?(?: ответа)?|пункт(?:ы|ом)?|букв[аыой]+",
    "zh": r"选项|選項|项|項",
    "ja": r"選択肢",
    "ko": r"선택지|보기",
    "ar": r"[وف]?(?:ال)?(?:خيارات|خياران|خيار|حرف|بديل)",
    "hi": r"विकल्प",
}
"""The noun that names one of the options."""

CORRECT: Table = {
    "en": r"(?:the )?(?:most )?(?:best|appropriate|likely|suitable|accurate|"
    # "to correct dehydration" is a verb
    r"(?<!to )(?<!can )(?<!will )(?<!help )(?<!helps )(?<!may )(?<!must )correct|"
    r"reasonable|fitting|probable|plausible|preferred|ideal|better(?= (?:answer|option|choice|"
    r"fit))"
    # "the right breast" is a side
    r"|(?:right|true)(?![ -](?!answer|choice|option|one|response|letter|statement|diagnosis|"
    r"treatment|drug|next|step|because|since|as|for|in|and|but|here|given|due|if|when|while|so|"
    r"thus|there|that|to|about|of|regarding|concerning|except)"
    r"\w))",
    "fr": r"(?:la |les )?(?:correctes?|exactes?|bonnes?|justes?|vraies?|vrai)",
    "es": r"(?:la |las |el )?(?:correct[ao]s?|ciert[ao]s?|verdader[ao]s?|adecuad[ao]s?)",
    "pt": r"(?:a |as |o )?(?:corret[ao]s?|cert[ao]s?|verdadeir[ao]s?|adequad[ao]s?)",
    "de": r"(?:die |der |das )?(?:richtig(?:e[nrs]?)?|korrekt(?:e[nrs]?)?|beste[nrs]?|zutreffend)",
    "it": r"(?:la |le |il )?(?:corrett[aeio]|giust[aeio]|esatt[aeio]|ver[aeio])",
    "ru": r"правиль(?:но|н\w+)|верн\w+|верен|верно",
    "zh": r"正确|正確|最佳|最合适|最恰当|最可能|最符合",
    "ja": r"正しい|正解|正答|最も適切|適切",
    "ko": r"맞(?:다|습니다|는)|옳(?:다|습니다|은)|정답|적절",
    "ar": r"(?:ال)?(?:صحيحة|صحيحان|صحيح|صواب|أنسب|أفضل)",
    "hi": r"सही",
}
"""That an option or a statement is right."""

BETTER: Table = {
    "en": r"(?:the |a )?(?:better|more (?:likely|probable|appropriate|suitable|plausible|"
    r"consistent|fitting)|stronger|closer|superior|preferable)(?! than)(?: \w+(?! than))?|"
    r"fits (?:best|better(?! than))",
    "fr": r"(?:la |le )?(?:meilleure?|plus (?:probable|appropriée?|adaptée?))(?! que)",
    "es": r"(?:la |el )?(?:mejor|más (?:probable|adecuad[oa]|apropiad[oa]))(?! que)",
    "pt": r"(?:a |o )?(?:melhor|mais (?:provável|adequad[oa]|apropriad[oa]))(?! (?:do )?que)",
    "de": r"(?:die |der |das )?(?:bessere?|besser|wahrscheinlicher|geeigneter|passender)(?! als)",
    "it": r"(?:la |il )?(?:migliore|più (?:probabile|appropriat[oa]|adatt[oa]))(?! (?:di|che))",
    "ru": r"(?:подходит )?(?:лучше|больше|вероятнее)(?! чем)",
    "zh": r"更(?:为)?(?:合适|适合|好|可能|符合|恰当|准确)",
    "ja": r"(?:の方|のほう)?が(?:より)?(?:適切|適して|可能性が高)",
    "ko": r"가 더 (?:적절|적합)",
    "ar": r"(?:هو |هي )?(?:ال)?(?:أفضل|أنسب|أرجح)(?! من)",
}
"""What prefers an option to others that were left."""

FINAL: Table = {
    "en": r"final|corrected|selected|chosen",
    "fr": r"finales?|définitive",
    "es": r"finale?s?|definitiva",
    "pt": r"final|finais|definitiva",
    "de": r"endgültig(?:e[nrs]?)?|finale?",
    "it": r"finale?i?|definitiva",
    "ru": r"окончательн(?:ый|ым)",
    "zh": r"最终",
    "ja": r"最終的な|最終",
    "ko": r"최종",
    "ar": r"(?:ال)?نهائية?",
    "hi": r"अंतिम",
}

COPULA: Table = {
    "en": r"is|are|was|(?:would|should|must|has to|will)(?: therefore| then| thus)? be|remains?",
    "fr": r"est|sont|serait|reste",
    "es": r"es|son|sería|está|están",
    "pt": r"é|são|seria|está|estão",
    "de": r"ist|sind|lautet|lauten|wäre",
    "it": r"è|sono|sarebbe",
    "ru": r"является|являются|будет|это",
    "zh": r"应该是|应当是|应该选|应为|应是|应选|选择|选|選|是|为|為",
    "ja": r"は|が",
    "ko": r"은|는|이|가",
    "ar": r"هي|هو|هما|هم",
}

NOT: Table = {
    "en": r"not|\w+n't|never|neither|nor|cannot|none|no",
    "fr": r"pas|ne|n'est|ni|aucune?",
    "es": r"no|ningun[oa]|ningún|tampoco|ni",
    "pt": r"não|nem|nenhuma?|tampouco",
    "de": r"nicht|kein\w*|weder|noch",
    "it": r"non|né|nessun[oa]?",
    "ru": r"не|ни|нет|нельзя",
    "zh": r"不|非|没有",
    "ja": r"ではな|でな|ない|ません",
    "ko": r"아니|아닙|않",
    "ar": r"[وف]?(?:لا|ليست?|غير|لم|لن)",
    "hi": r"नहीं",
}

WRONG: Table = {
    "en": r"incorrect(?:ly)?|wrong|false|unlikely|less (?:likely|preferred|appropriate|suitable|"
    r"probable|consistent|plausible|fitting)|inappropriate|eliminated?|excluded?|"
    r"(?:ruled|left|crossed) out|out|inaccurate|contraindicated|not|untrue|too \w+|unsafe",
    "fr": r"fauss?e?s?|incorrectes?|inexactes?|éliminée?s?|exclue?s?|erronée?s?|contre-indiquée?s?",
    "es": r"incorrect[ao]s?|fals[ao]s?|errón[ae]\w*|descartad[ao]s?|contraindicad[ao]s?|"
    r"descart[ao]n?",
    "pt": r"incorret[ao]s?|fals[ao]s?|errad[ao]s?|eliminad[ao]s?",
    "de": r"falsch\w*|inkorrekt|unwahrscheinlich|ausgeschlossen|scheide[nt]|scheidet aus|"
    r"kontraindiziert",
    "it": r"errat[aeio]|sbagliat[aeio]|scorrett[aeio]|esclus[aeio]|controindicat[aeio]",
    "ru": r"неверн\w*|неправиль\w*|ошибоч\w*|исключ\w*|неверен|противопоказан\w*",
    "zh": r"错误|錯誤|不正确|不对|不符|不选|排除|不合适|不是|有误|错|不考虑|无关|禁忌",
    "ja": r"誤り|誤って|間違い|不適切|正しくない|違う|除外|禁忌|も誤り|は誤り|も不適切|は不適切",
    "ko": r"틀렸|틀린|오답|아니|아닙|부적절",
    "ar": r"خاطئة?|خطأ|ممنوع|مستبعد",
    "hi": r"गलत|वर्जित",
}
"""That an option or a statement is wrong."""

OR: Table = {
    "en": r"or|versus|vs",
    "fr": r"ou",
    "es": r"o|u",
    "de": r"oder",
    "it": r"oppure",
    "ru": r"или|либо",
    "zh": r"或者?|还是",
    "ja": r"または|あるいは|か(?=[A-Za-z])",
    "ko": r"또는|혹은",
    "ar": r"أو",
    "hi": r"या",
}

AND: Table = {
    "en": r"and|as well as|plus",
    "fr": r"et",
    "es": r"y",
    "pt": r"e",
    "de": r"und|sowie",
    "ru": r"и",
    "zh": r"和|与|與|及",
    "ja": r"と|および|及び",
    "ko": r"와|과",
    "ar": r"و",
    "hi": r"और|तथा",
}

INSTEAD: Table = {
    "en": r"but(?: rather)?(?: it(?:'s| is))?|rather",
    "fr": r"mais(?: bien)?|c'est",
    "es": r"sino(?: que es)?",
    "pt": r"e sim|mas(?: sim)?",
    "de": r"sondern",
    "it": r"bensì|ma",
    "ru": r"а|но",
    "zh": r"而是",
    "ja": r"ではなくて?|でなく",
    "ko": r"아니라",
    "ar": r"بل",
    "hi": r"बल्कि",
}
"""What links a dropped option to the chosen one: "not A but B"."""

FOLLOWING: Table = {
    "en": r"because|since|as|for|due|given|which|that|with|based|according|in|is|was|are|but|"
    r"not|so|"
    r"therefore|by|on|from|when|rather|over|here|it|this|the|these|he|she|they|we|would|and|if|"
    r"while|where|of|or|remains|remained|must|should|seems|fits|can|may|could|has",
    "fr": r"car|parce|puisque|qui|est|donc|comme|pour|sont|et|n'est|mais|ou",
    "es": r"porque|ya|pues|es|debido|dado|que|y|son|está|están|sino|o",
    "pt": r"pois|já|é|uma|são|e|estão|está|mas|ou",
    "de": r"weil|da|denn|ist|wegen|sind|und|trifft|treffen|wählen|nehmen|"
    r"bleibt|richtig|korrekt|sondern|oder|"
    r"zu|nicht|die|das",
    "it": r"perché|poiché|è|sono|dato|ma|bensì|e|o",
    "ru": r"так|потому|поскольку|является|верен|верна|верно|и|или|ведь|правильный",
}
"""What may follow a bare letter in a sentence, where "A patient" and "C cells" are words."""

CONCLUSION: Table = {
    "en": r"(?:most|least) (?:likely|appropriate|probable|suitable|accurate|consistent|plausible|"
    r"fitting|effective|important)|best|correct|right|next step|initial step|diagnos\w+|"
    r"treatment of choice|drug of choice|first[- ]line|therefore|thus|so|hence|consequently|"
    r"conclu\w+|summary|result|overall|final|must be|should|needs?|identif\w+|based on|"
    r"remains|indicated|responsible|requires?|fits?|explains?|suggests?|indicates?|points? to|"
    r"confirms?|preferred|recommended|that's why|which is why|treated with|"
    r"consistent with|(?:characteristic|typical|pathognomonic) of|classic for|is due to|"
    r"is caused by|corresponds?|i\.e",
    "fr": r"donc|ainsi|par conséquent|conclusion|au total|il s'agit|diagnostic|indiquée?|"
    r"(?:le|la) plus (?:probable|appropriée?|vraisemblable)|traitement|bonne",
    "es": r"por (?:lo )?tanto|así que|conclusión|entonces|por consiguiente|se trata|diagnóstico|"
    r"más (?:probable|adecuad[oa]|indicad[oa]|apropiad[oa])|indicad[oa]|de elección|correct[oa]",
    "pt": r"portanto|logo|assim|conclusão|sendo assim|trata-se|diagnóstico|de escolha|corret[oa]|"
    r"mais (?:provável|adequad[oa]|indicad[oa]|apropriad[oa])|indicad[oa]|tratamento",
    "de": r"daher|somit|also|folglich|fazit|demnach|deshalb|es handelt sich|diagnose|der wahl|"
    r"wahrscheinlichste\w*|geeignetste\w*|indiziert|richtig\w*|beste\w*|spricht für|es fehlt",
    "it": r"quindi|pertanto|dunque|conclusione|si tratta|diagnosi|indicat[oa]|di scelta|"
    r"più (?:probabile|appropriat[oa]|adatt[oa]|indicat[oa])|corrett[oa]",
    "ru": r"следовательно|таким образом|поэтому|итак|значит|вывод|речь идёт|итог|показан[аоы]?|"
    r"наиболее \w+|диагноз",
    "zh": r"因此|所以|综上|故|总之|考虑为|最可能|最合适|最恰当|最佳|首选|诊断|正确|应|治疗",
    "ja": r"したがって|従って|よって|以上より|ゆえに|結論|最も|診断|考えられ|正しい|行う|投与する",
    "ko": r"따라서|그러므로|결론|가장|진단|합당",
    "ar": r"[وف]?(?:لذلك|إذن|بالتالي|إذا|بناء|هذا|ال?تشخيص|ال?أنسب|ال?علاج)",
    "hi": r"इसलिए|अतः|सबसे|निदान",
}
"""What marks a sentence as the conclusion of an analysis."""

THEREFORE: Table = {
    "en": r"therefore|thus|so|hence|consequently|accordingly|conclusion|then|i\.e\.?|namely|"
    r"(?:corresponds|corresponding|points|pointing|equivalent) to|matches",
    "fr": r"donc|ainsi|par conséquent",
    "es": r"por (?:lo )?tanto|entonces|así que",
    "pt": r"portanto|logo|então",
    # "is also C" is English
    "de": r"daher|somit|(?<![a-zäöüß] )also|folglich|fazit",
    "it": r"quindi|pertanto|dunque",
    "ru": r"итак|следовательно|поэтому|значит",
    "zh": r"因此|所以|故",
    "ja": r"したがって|従って|よって|ゆえに",
    "ko": r"따라서|그러므로",
    "ar": r"[وف]?(?:إذن|لذلك)",
    "hi": r"इसलिए|अतः",
}

CHOOSE: Table = {
    "en": r"(?:I|we)(?:'d|'ll|'m| would| will| have| am)?(?: therefore| thus| then| also)? "
    r"(?:choose|chose|pick|picked|select|selected|go with|going with|opt for|lean(?:ing)? towards?|"
    r"favou?r|say|think|believe|guess)|select|choose|pick|(?:it|that)(?:'s| is| must be|"
    r" has to be| should be| would be)",
    "fr": r"je (?:choisis|choisirais|retiens|retiendrais|sélectionne|réponds|répondrais)|"
    r"on retient|"
    r"c'est|il s'agit de",
    "es": r"(?:yo )?(?:elijo|elegiría|escojo|escogería|selecciono|marcaría|me quedo con)",
    "pt": r"(?:eu )?(?:escolho|escolheria|marco|marcaria|seleciono|fico com|assinalo)",
    "de": r"(?:ich )?(?:wähle|nehme|würde|trifft(?: nur)?|entscheide mich(?: daher| also)? für|"
    r"tippe auf)",
    "it": r"(?:io )?(?:scelgo|sceglierei|seleziono|direi)",
    "ru": r"(?:больше|лучше) подходит|(?:я )?(?:выбираю|выберу|выбрала? бы)",
    "zh": r"应选择|应选|應選|故选|故選|选择|選擇|选|選",
    "ar": r"س?[أن]?ختار",
}
"""A first person who chooses, or "it is"."""

REMAINS: Table = {
    "en": r"what(?:'s| is)? (?:left|remains) is|leav(?:ing|es)(?: us)?(?: with)?(?: only| just)?|"
    r"left with(?: only)?|"
    r"the only (?:remaining )?(?:option|choice|answer)(?: left)? is|only",
    "fr": r"il ne reste(?: plus)?(?: donc)? que|reste(?: donc)?",
    "es": r"s[oó]lo (?:queda|resta)|queda(?: s[oó]lo| únicamente)?",
    "pt": r"resta(?:ndo)?(?:, portanto,?)?(?: apenas| somente| só| solo| soltanto)?|"
    r"sobra(?:ndo)?(?: apenas| só)?",
    "de": r"bleibt(?: also| somit| daher)?(?: nur)?(?: noch)?",
    "it": r"(?:resta|rimane)(?: quindi)?(?: solo| soltanto)?",
    "ru": r"оста[её]тся(?: только| лишь)?",
    "zh": r"只剩下?|剩下(?:的只有|的是)?",
    "ja": r"残る(?:選択肢は|のは)",
    "ko": r"남는 것은",
    "ar": r"[فو]?لا يبقى(?: سوى| إلا)?|يتبقى(?: فقط)?",
}
"""What comes before the option that is left after the elimination of the others."""

REMAINED: Table = {
    "en": r"remains|is (?:the only )?(?:one )?left|it is|is the only",
    "de": r"bleibt übrig",
    "zh": r"符合",
    "ja": r"が残る|のみ",
}

YES_NO_MAYBE = {
    "yes": (
        "yes",
        "oui",
        "sí",
        "si",
        "sim",
        "ja",
        "да",
        "是",
        "はい",
        "نعم",
        "sì",
        "네",
        "예",
        "हाँ",
    ),
    "no": ("no", "non", "não", "nein", "нет", "否", "不是", "いいえ", "لا", "아니요", "नहीं"),
    "maybe": (
        *("maybe", "peut-être", "peut être", "quizás", "tal vez", "talvez", "vielleicht"),
        *("возможно", "может быть", "可能", "ربما", "forse", "शायद"),
    ),
}
"""Answers of yes/no questions."""

LOOKALIKES = {
    **dict(zip("АВСЕБГД", "ABCEBDE", strict=True)),  # Cyrillic: same look, or place in the order
    **dict(zip("ΑΒΓΔΕ", "ABCDE", strict=True)),
    **dict(zip("أاإبجده", "AAABCDE", strict=True)),
}
"""Letters of other alphabets that name an option.

A Russian keyboard types В and С for B and C; who writes Б or Г counts in the Russian order.
"""
