-- dead_letters <selection>: number, header and event of each, about 4 MiB of them.
local function verb()
  local found, after = select_letters()
  local answers, bytes = {}, 0
  for _, each in ipairs(found) do
    local event = call('HGET', P .. 'letter:events', int(each[1]))
    bytes = bytes + #event
    if bytes > 4194304 and #answers > 0 then
      return { 'ok', answers, answers[#answers][1] }
    end
    event = cmsgpack.unpack(event)
    answers[#answers + 1] = { each[1], each[3], event[1], event[2] }
  end
  return { 'ok', answers, after }
end
